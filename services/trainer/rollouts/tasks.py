"""The rollout's Celery task: makes a batch once, retries outages with back-off, records what can never succeed."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from pydantic import ValidationError
from redis import Redis

from rlhf.contracts.errors import InternalError, Overloaded, ServiceError, Unauthorized, Unavailable
from rlhf.contracts.jobs import JobState
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.experience.stream import ExperienceStream, Failure
from services.trainer.jobs.celery_app import ROLLOUT
from services.trainer.jobs.connection import REDIS_OUTAGES
from services.trainer.jobs.instruments import BATCHES_PUSHED, ROLLOUT_SAMPLES, TASK_RETRIES, TASK_SECONDS
from services.trainer.jobs.lease import Lease, acquire_lease
from services.trainer.jobs.store import JobStore
from services.trainer.rollouts.limit import LimitExceeded, StoppedEarly, run_limited
from services.trainer.rollouts.rollout import Generate, Score, run_rollout
from services.trainer.settings import RolloutSettings

log = logging.getLogger(__name__)
RETRIED = (Unavailable, Overloaded, InternalError, LimitExceeded)
"""What may pass by itself. A service's own error, a 500, may be a bug that stays; waiting then costs a few minutes."""


@dataclass(frozen=True)
class Roller:
    """What the rollout worker keeps between tasks.

    Attributes:
        settings: of this worker.
        redis: returns bytes.
        generate: calls the policy service; thread-safe.
        score: calls the reward service; thread-safe.
        stopping: set when the worker was told to stop.
    """

    settings: RolloutSettings
    redis: Redis
    generate: Generate
    score: Score
    stopping: threading.Event


def register_rollouts(app: Celery, roller: Roller) -> None:
    """Adds the task to the rollout worker's app."""

    # max_retries=None: how often is decided here, where the reason is known.
    @app.task(name=ROLLOUT, bind=True, max_retries=None)
    def rollout(self: Task, message: dict[str, Any]) -> None:
        try:
            task = RolloutTask.model_validate(message)
        except ValidationError as error:
            _refuse(roller.redis, message, str(error))
            return
        if roller.stopping.is_set():
            raise Reject("the worker is stopping", requeue=True)
        stream = ExperienceStream(roller.redis, task.job)
        if not _wanted(roller, stream, task):
            return
        lease = acquire_lease(
            roller.redis,
            task.batch_id,
            self.request.id,
            ttl_s=roller.settings.lease_s,
            heartbeat_s=roller.settings.heartbeat_s,
        )
        if lease is None:
            log.info("batch is being made by another worker, nothing to do", extra={"batch": task.batch_id})
            return
        started = time.monotonic()
        outcome = "interrupted"
        try:
            with lease:
                outcome = _attempt(self, roller, stream, task, lease)
        finally:
            TASK_SECONDS.labels(ROLLOUT, outcome).observe(time.monotonic() - started)


def backoff_s(settings: RolloutSettings, retries: int, asked_s: float | None) -> float:
    """Seconds before the next try: doubles up to a maximum, with jitter, never less than the service asked for."""
    longest = min(settings.rollout_backoff_max_s, settings.rollout_backoff_s * 2.0 ** min(retries, 30))
    return max(longest * random.uniform(0.5, 1.0), asked_s or 0.0)


def _wanted(roller: Roller, stream: ExperienceStream, task: RolloutTask) -> bool:
    (state,) = JobStore(roller.redis, roller.settings).fields(task.job, "state")
    if state is None or JobState(state).final:
        log.info("job has ended, nothing to do", extra={"batch": task.batch_id})
        return False
    if stream.seen([task.batch_id]):
        log.info("batch exists, nothing to do", extra={"batch": task.batch_id})
        return False
    return True


def _attempt(celery_task: Task, roller: Roller, stream: ExperienceStream, task: RolloutTask, lease: Lease) -> str:
    """One try; returns how it ended, or raises what Celery needs to repeat it."""
    settings = roller.settings
    try:
        batch = run_limited(
            lambda: run_rollout(task, roller.generate, roller.score),
            settings.rollout_time_limit_s,
            roller.stopping,
            settings.stop_grace_s,
        )
    except StoppedEarly as stop:
        raise Reject(str(stop), requeue=True) from stop
    except RETRIED as error:
        retries = celery_task.request.retries
        if retries < settings.rollout_max_retries:
            delay = backoff_s(settings, retries, getattr(error, "retry_after", None))
            TASK_RETRIES.labels(ROLLOUT, type(error).__name__).inc()
            log.warning("rollout will be retried", extra={"batch": task.batch_id, "in_s": delay, "error": str(error)})
            _tell(roller, task, delay, error)
            # The lease stays through the pause, so that nobody takes the task for lost; the same id takes it again.
            lease.leave(delay + settings.lease_s)
            raise celery_task.retry(exc=error, countdown=delay) from error
        stream.record_failure(task.batch_id, Failure(f"{error} (after {retries + 1} tries)", mendable=True))
        return "failed"
    except REDIS_OUTAGES:
        raise
    except Exception as error:
        # A refused request stays refused, and an error nobody foresaw is a bug: the learner must learn of both.
        log.exception("rollout failed", extra={"batch": task.batch_id})
        reason = str(error) if isinstance(error, ServiceError) else f"{type(error).__name__}: {error}"
        # A key can be mended where the workers run; any other refusal follows from the job itself.
        stream.record_failure(task.batch_id, Failure(reason, mendable=isinstance(error, Unauthorized)))
        return "failed"
    _push(stream, batch)
    return "succeeded"


def _tell(roller: Roller, task: RolloutTask, delay: float, error: Exception) -> None:
    """Says in the job's events what it waits for."""
    message = f"rollout {task.batch_id} is tried again in {delay:.0f} s: {error}"
    data = {"batch": task.batch_id, "in_s": delay}
    JobStore(roller.redis, roller.settings).add_event(task.job, "log", "warning", "rollout_retried", message, data)


def _refuse(redis: Redis, message: dict[str, Any], reason: str) -> None:
    """Fails the batch of a message that this worker cannot read: the learner would send it for ever."""
    log.error("rollout message is malformed", extra={"reason": reason})
    job = str(message.get("job"))
    batch_id = f"{job}:{message.get('step')}:{message.get('shard')}"
    failure = Failure(f"malformed message; update the worker: {reason}", mendable=True)
    ExperienceStream(redis, job).record_failure(batch_id, failure)


def _push(stream: ExperienceStream, batch: ExperienceBatch) -> None:
    added = stream.push(batch)
    BATCHES_PUSHED.labels("added" if added else "repeated").inc()
    ROLLOUT_SAMPLES.labels("kept").inc(len(batch))
    ROLLOUT_SAMPLES.labels("dropped").inc(len(batch.failures))
    log.info(
        "batch pushed" if added else "batch was there already",
        extra={"batch": batch.batch_id, "samples": len(batch), "failures": len(batch.failures), **batch.timings},
    )
