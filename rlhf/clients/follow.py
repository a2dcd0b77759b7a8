"""Follows a job over HTTP to its end, for someone who watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from rlhf.contracts.jobs import JobEvent, JobState, JobStatus, PpoJobConfig, RewardModelJobConfig

POLL_S = 1.0


class JobFailed(RuntimeError):
    """A job did not succeed; the message gives its reason."""


class Trainer(Protocol):
    """What is needed of the trainer's client."""

    def submit(self, config: PpoJobConfig | RewardModelJobConfig) -> JobStatus:
        """Queues a job."""

    def job(self, job: str) -> JobStatus:
        """Its state."""

    def events(self, job: str, *, after: str | None = None) -> list[JobEvent]:
        """Its events after one, in order."""


class Watcher(Protocol):
    """Is told what happens to a job."""

    def tell(self, event: JobEvent) -> None:
        """One event, in order."""

    def update(self, status: JobStatus) -> None:
        """The job's state, about once a second."""


def run_job(
    trainer: Trainer, config: PpoJobConfig | RewardModelJobConfig, watcher: Watcher, check: Callable[[], None]
) -> tuple[JobStatus, list[JobEvent]]:
    """Submits a job and follows it. Args: config, of the job; the others, the answer and errors as `follow_job`.

    Nobody else knows of this job, so nobody would resume it: one that pauses counts as failed.
    """
    return follow_job(trainer, trainer.submit(config).id, watcher, check, resumable=False)


def follow_job(
    trainer: Trainer, job: str, watcher: Watcher, check: Callable[[], None], *, resumable: bool = True
) -> tuple[JobStatus, list[JobEvent]]:
    """Follows a job to its end, from its first event that is still known.

    Args:
        trainer: client of the job API.
        job: its id.
        watcher: told of every event and state.
        check: raises when following has no point any more, as when a service died.
        resumable: a job that is paused may be resumed by someone, and is waited for.

    Returns:
        The final state and all events.

    Raises:
        JobFailed: it failed or was cancelled, or is paused and nobody will resume it.
    """
    events: list[JobEvent] = []
    while True:
        check()
        # The state first: when it is final, no event comes after those read next.
        status = trainer.job(job)
        while fresh := trainer.events(job, after=events[-1].id if events else None):
            events += fresh
            for event in fresh:
                watcher.tell(event)
        watcher.update(status)
        if status.state.final or (status.state is JobState.PAUSED and not resumable):
            break
        time.sleep(POLL_S)
    if status.state is not JobState.SUCCEEDED:
        raise JobFailed(f"job {status.id} ({status.kind}) {status.state}: {status.reason or 'no reason was given'}")
    return status, events
