"""What an evaluation's gates decide: an event, and the decision on its adapter where the job promotes."""

from __future__ import annotations

from rlhf.artifacts.decisions import Decision, decide
from rlhf.contracts.evaluation import EvaluationJobConfig
from rlhf.contracts.gates import GatesOutcome
from services.trainer.jobs.handle import JobHandle
from services.trainer.jobs.record import Level


def tell_outcome(job: JobHandle, config: EvaluationJobConfig, outcome: GatesOutcome, empty: str | None) -> None:
    """Records what was decided, then tells it. Done again, it decides the same; an event may then stand twice.

    Args:
        job: the evaluation.
        config: its own, with gates.
        outcome: of the gates.
        empty: what was not measured at all, so that the job fails; such an evaluation accepts nothing.
    """
    reasons = outcome.failed + ([empty] if empty is not None else [])
    data = {"adapter": config.adapter, "evaluation": job.id, **outcome.model_dump()}
    if not config.promote:
        message = f"gates failed: {'; '.join(reasons)}" if reasons else f"all {len(outcome.results)} gates held"
        job.event("gates_failed" if reasons else "gates_held", message, level=_level(reasons), data=data)
        return
    trained, _, version = config.adapter.partition("@")
    state = "rejected" if reasons else "accepted"
    decision = Decision(version=int(version), state=state, evaluation=job.id, reasons=reasons)
    decide(job.store, trained, decision)
    if reasons:
        message = f"{config.adapter} was rejected by {job.id} and is not {trained}@latest: {'; '.join(reasons)}"
    else:
        message = f"{config.adapter} was accepted by {job.id}: all {len(outcome.results)} gates held"
    for told in (job.id, trained):
        job.event(state, message, level=_level(reasons), data=data, of=told)


def _level(reasons: list[str]) -> Level:
    return "warning" if reasons else "info"
