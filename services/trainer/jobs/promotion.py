"""What becomes of a PPO job's final version when training has ended: accepted at once, or evaluated first. No torch."""

from __future__ import annotations

from celery import Celery

from rlhf.artifacts.decisions import Decision, decide, read_decisions
from rlhf.artifacts.folders import write_durably
from rlhf.contracts.evaluation import EvaluationJobConfig
from rlhf.contracts.jobs import PpoJobConfig
from services.trainer.evaluation.plan import total_units
from services.trainer.jobs.celery_app import EVALUATION_QUEUE, send_learn
from services.trainer.jobs.handle import CONFIG_FILE, JobHandle
from services.trainer.jobs.store import Idempotency, JobStore


def conclude_training(job: JobHandle, config: PpoJobConfig, jobs: JobStore, app: Celery) -> None:
    """Accepts the final version, or submits the evaluation whose gates decide on it.

    Comes before the job's end is recorded: a learner that is killed in between does it again, which changes nothing,
    since the evaluation's id follows from the job's.

    Args:
        job: whose training has ended.
        config: its own.
        jobs: records.
        app: sends to the evaluations' queue.
    """
    job.raise_if_lost()
    version = _final_version(job, config, jobs)
    ref, evaluation = f"{job.id}@{version}", f"eval-{job.id}"
    if config.gates:
        # Before the evaluation is there, and never over what it has decided already.
        if not any(each.evaluation == evaluation for each in read_decisions(job.store, job.id)):
            decide(job.store, job.id, Decision(version=version, state="pending", evaluation=evaluation))
    else:
        decide(job.store, job.id, Decision(version=version, state="accepted", evaluation=None))
        job.event("accepted", f"{ref} is {job.id}@latest from now on", data={"adapter": ref})
    if config.evaluation is None:
        return
    measured = config.evaluation.model_dump(by_alias=True)
    asked = {"kind": "evaluation", "adapter": ref, "gates": config.gates, "promote": bool(config.gates)}
    _submit(job, EvaluationJobConfig.model_validate(measured | asked), evaluation, jobs, app)
    what = (
        f"{len(config.gates)} gates of {evaluation} decide on {ref}" if config.gates else f"{evaluation} measures {ref}"
    )
    job.event("evaluation_submitted", what, data={"adapter": ref, "evaluation": evaluation})


def _final_version(job: JobHandle, config: PpoJobConfig, jobs: JobStore) -> int:
    if config.promote == "last":
        return config.steps
    best = jobs.status(job.id).best
    if best is None:
        message = f"no version can be told to be the best, so the last counts: {job.id}@{config.steps}"
        job.event("no_best", message, level="warning")
        return config.steps
    return best.step


def _submit(job: JobHandle, config: EvaluationJobConfig, evaluation: str, jobs: JobStore, app: Celery) -> None:
    write_durably(job.store.job_folder(evaluation) / CONFIG_FILE, config.model_dump_json(by_alias=True).encode())
    # No caller's Idempotency-Key has a line end. A record that is there stays as it is, whatever became of it.
    once = Idempotency(f"evaluation of\n{job.id}", "", jobs.settings.job_ttl_s)
    jobs.create(evaluation, config.kind, total_units(config), once, priority=jobs.status(job.id).priority)
    send_learn(app, evaluation, EVALUATION_QUEUE)
