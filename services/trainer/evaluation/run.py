"""The evaluation job: unit after unit, each kept before the next begins; then figures and `evaluation.json`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf.clients.http import Retries
from rlhf.contracts.errors import InternalError, InvalidInput, Overloaded, Unavailable
from rlhf.contracts.evaluation import EvaluationJobConfig
from rlhf.contracts.figures import BOUNDS
from rlhf.evaluation.gates import judge_gates
from services.trainer.evaluation.asking import Services
from services.trainer.evaluation.gates import tell_outcome
from services.trainer.evaluation.journal import Journal, write_report
from services.trainer.evaluation.plan import make_sections
from services.trainer.evaluation.section import Row, Section
from services.trainer.jobs.handle import JobHandle, ServicesFailed

log = logging.getLogger(__name__)
REPORT_FILE = "evaluation.json"
PATIENCE = Retries(attempts=10, first_delay_s=2.0, longest_delay_s=60.0, longest_wait_s=60.0)
"""For an outage of policy or reward: about five minutes, beyond what the clients bridge by themselves."""
OUTAGES = (Unavailable, Overloaded, InternalError)
LOOK_S = 0.5


def run_evaluation(job: JobHandle, services: Services) -> None:
    """Runs an evaluation job to its end, from where an earlier attempt got to.

    Args:
        job: whose config is an EvaluationJobConfig.
        services: policy and reward.

    Raises:
        InvalidInput: it cannot be done here, such as without a plug-in; or nothing at all could be scored.
        ServiceError: policy or reward refused, or could not be reached for minutes.
    """
    config = job.config
    if not isinstance(config, EvaluationJobConfig):
        raise InvalidInput(f"job {job.id} is of kind {config.kind}, not evaluation; submit it as what it is")
    sections = make_sections(config, config.adapter)
    for section in sections:
        section.check()
    journals = [Journal(job.folder, section.name) for section in sections]
    done, total = 0, sum(section.units for section in sections)
    for section, journal in zip(sections, journals, strict=True):
        done += journal.done
        if journal.done:
            job.event("resumed", f"{section.name}: {journal.done} of {section.units} units were done before")
        for unit in range(journal.done, section.units):
            job.raise_if_stopped()
            rows = _patiently(job, lambda section=section, unit=unit: section.run(unit, services))  # type: ignore[misc]
            job.raise_if_lost()
            journal.add(rows)
            done += 1
            if done < total:
                job.progress(done, total, {})
    job.raise_if_stopped()
    job.progress(total, total, _conclude(job, config, sections, journals))


def _conclude(
    job: JobHandle, config: EvaluationJobConfig, sections: list[Section], journals: list[Journal]
) -> dict[str, float]:
    """Writes the report and decides by the gates; returns the figures.

    Raises:
        InvalidInput: a section measured nothing.
    """
    told = {section.name: section.summarise(journal.rows) for section, journal in zip(sections, journals, strict=True)}
    metrics = flatten(told)
    report: dict[str, Any] = {"job": job.id, "adapter": config.adapter, "baseline": config.baseline}
    report |= {"reward_model": config.reward_model, "seed": config.seed, "created_at": time.time(), **told}
    outcome = judge_gates(config.gates, metrics) if config.gates else None
    if outcome is not None:
        report["gates"] = outcome.model_dump()
    job.raise_if_lost()
    write_report(Path(job.folder) / REPORT_FILE, report)
    empty = _find_emptiness(sections, journals)
    if outcome is not None:
        # Before the job's end is recorded: one who is killed in between does it again, from the same figures.
        tell_outcome(job, config, outcome, empty)
    if empty is not None:
        raise InvalidInput(empty)
    return metrics


def flatten(told: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested figures by their path, `bbq/adapter/all/ambig/accuracy`, with an interval's two bounds.

    Other lists, and texts, are left out.
    """
    numbers: dict[str, float] = {}
    for name, value in told.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            numbers |= flatten(value, f"{path}/")
        elif name.endswith("ci95") and isinstance(value, list | tuple):
            numbers |= flatten(dict(zip(BOUNDS, value, strict=True)), f"{path}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[path] = float(value)
    return numbers


def _patiently(job: JobHandle, run: Callable[[], list[Row]]) -> list[Row]:
    """The unit's rows; waits out an outage of a service, and says so in the job's events."""
    for attempt in range(PATIENCE.attempts):
        try:
            return run()
        except OUTAGES as error:
            if attempt + 1 == PATIENCE.attempts:
                raise ServicesFailed(f"a request was tried {PATIENCE.attempts} times in vain: {error}") from error
            delay = PATIENCE.delay(attempt, error.retry_after)
            message = f"a request is tried again in {delay:.0f} s: {error}"
            job.event("request_retried", message, level="warning", data={"in_s": delay})
            log.warning("unit will be retried", extra={"job": job.id, "in_s": delay, "error": str(error)})
            end = time.monotonic() + delay
            while (left := end - time.monotonic()) > 0:
                job.raise_if_stopped()
                time.sleep(min(LOOK_S, left))
    raise AssertionError("attempts is at least 1")


def _find_emptiness(sections: list[Section], journals: list[Journal]) -> str | None:
    """Says which section has no sample that was answered: it measured nothing."""
    for section, journal in zip(sections, journals, strict=True):
        reasons = [reason for row in journal.rows for reason in _errors(row)]
        if reasons and not any(_answered(row) for row in journal.rows):
            return f"{section.name}: not one sample could be scored; the first: {reasons[0]}"
    return None


def _errors(value: Any) -> list[str]:
    """Every reason that stands in a row."""
    if isinstance(value, dict):
        own = [each for name, each in value.items() if name == "error" or name == "errors"]
        told = [each for item in own for each in (item if isinstance(item, list) else [item])]
        return told + [reason for each in value.values() for reason in _errors(each)]
    return [reason for each in value for reason in _errors(each)] if isinstance(value, list) else []


def _answered(value: Any) -> bool:
    """Whether a row has a text, log-probabilities or a reward."""
    if isinstance(value, dict):
        if "text" in value or "logprobs" in value or any(each is not None for each in value.get("rewards", [])):
            return True
        return any(_answered(each) for each in value.values())
    return isinstance(value, list) and any(_answered(each) for each in value)
