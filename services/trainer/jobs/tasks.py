"""The learner's Celery task: takes the first queued job, runs it, records how it ended. Imports torch when it runs.

A message that finds no queued job is a no-op: messages are doubled and redelivered, work is not.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from redis import Redis

from rlhf.artifacts.remote import RemoteAway
from rlhf.artifacts.store import TRAINING_PATIENCE_S, ArtifactStore, open_store
from rlhf.contracts.errors import ServiceError
from rlhf.contracts.jobs import JobState, PpoJobConfig
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.collector import Collector
from services.trainer.experience.stream import ExperienceStream
from services.trainer.jobs.celery_app import (
    LEARN,
    LEARNER_QUEUE,
    ROLLOUT_QUEUE,
    send_learn,
    send_rollouts,
    waiting,
)
from services.trainer.jobs.connection import BLOCK_MS, REDIS_OUTAGES
from services.trainer.jobs.handle import (
    JobCancelled,
    JobHandle,
    JobPaused,
    ProcessLost,
    RolloutFailed,
    ServicesFailed,
    WorkerStopping,
)
from services.trainer.jobs.instruments import LEASES_LOST, TASK_SECONDS
from services.trainer.jobs.keeping import keep_record
from services.trainer.jobs.lease import Lease, LeaseLost, acquire_lease, leases_held
from services.trainer.jobs.promotion import conclude_training
from services.trainer.jobs.store import JobStore
from services.trainer.settings import LearnerSettings, WorkerSettings

log = logging.getLogger(__name__)
JobRunner = Callable[[JobHandle, Any], None]

CURE = "mend what failed, then resume the job: nothing is lost, and what failed is asked for again"

ENTRY_POINTS = {
    "ppo": "services.trainer.ppo.learner:run_ppo",
    "reward_model": "services.trainer.reward_model.train:run_reward_model",
}
"""Kind of job to `module:function(job, base)`, imported when first needed."""
EVALUATION_ENTRY_POINTS = {"evaluation": "services.trainer.evaluation.run:run_evaluation"}
"""Of the worker of the queue `evaluations`, where `base` is what policy and reward answer."""
ENDED = ("succeeded", "failed", "cancelled")
"""Outcomes after which a job does not change."""
ROLLOUT_LOOK_S = 5.0
"""Where a worker's jobs ask for no rollouts."""


@dataclass
class Learner:
    """What a worker of a queue of jobs keeps between them.

    Attributes:
        settings: of this worker.
        redis: returns bytes.
        app: sends rollout tasks.
        stopping: set when the worker was told to stop.
        entry_points: kind of job to `module:function`, as ENTRY_POINTS.
        load_base: loads the base model; called once, kept in `base`.
        attempt: the job being run, with its lease.
        queue: of its jobs.
    """

    settings: WorkerSettings
    redis: Redis
    app: Celery
    stopping: threading.Event
    entry_points: dict[str, str]
    load_base: Callable[[Any], Any]
    base: Any = None
    attempt: tuple[str, Lease] | None = None
    queue: str = LEARNER_QUEUE

    @property
    def jobs(self) -> JobStore:
        """The job records."""
        return JobStore(self.redis, self.settings)


def register_learner(learner: Learner) -> None:
    """Adds the task to the learner's app."""

    @learner.app.task(name=LEARN)
    def learn(job: str) -> None:
        if learner.stopping.is_set():
            raise Reject("the worker is stopping", requeue=True)
        # The message's job is one of the queued ones, or was; the records say which of them comes first.
        for queued in learner.jobs.queue(learner.queue):
            if take_job(learner, queued):
                return
        log.info("no queued job is free, nothing to do", extra={"sent_for": job})


def take_job(learner: Learner, job: str) -> bool:
    """Runs a queued job; False when another learner has it, or it is not queued any more.

    Raises:
        Reject: the worker is stopping; the message goes back.
    """
    times = learner.settings.lease_s, learner.settings.heartbeat_s
    lease = acquire_lease(learner.redis, job, uuid.uuid4().hex, ttl_s=times[0], heartbeat_s=times[1])
    if lease is None:
        return False
    learner.attempt = job, lease
    started = time.monotonic()
    try:
        with lease:
            outcome = run_job(learner, job, lease)
    finally:
        learner.attempt = None
    if outcome == "nothing":
        return False
    TASK_SECONDS.labels(LEARN, outcome).observe(time.monotonic() - started)
    if outcome in ENDED:
        keep_record(learner.jobs, ArtifactStore(learner.settings.store).job_folder(job), job)
    if outcome == "resumed":
        send_learn(learner.app, job, learner.queue)
    if outcome == "stopped":
        raise Reject("the worker is stopping", requeue=True)
    return True


def run_job(learner: Learner, job: str, lease: Lease) -> str:
    """Makes one attempt at a job and records how it ended.

    Returns:
        succeeded, failed, cancelled, paused, resumed (paused and resumed at once: it needs a new message), stopped
        (goes on elsewhere), lost (another worker took it), interrupted (Redis or a process of the learner
        went away; the reconciler queues the job again) or nothing (the job had ended).
    """
    jobs = learner.jobs
    try:
        if not jobs.begin(job, lease.token):
            log.info("job has ended or is gone, nothing to do", extra={"job": job})
            return "nothing"
        log.info("job begins", extra={"job": job})
        try:
            _call_entry_point(learner, job, lease)
        except JobCancelled as stop:
            jobs.finish(job, JobState.CANCELLED, str(stop), lease.token)
            return "cancelled"
        except (ServicesFailed, RemoteAway) as stop:
            log.warning("job paused", extra={"job": job, "reason": str(stop)})
            jobs.pause(job, lease.token, f"{stop}; {CURE}")
            return "paused"
        except JobPaused:
            if jobs.pause(job, lease.token):
                return "paused"
            jobs.requeue(job, "resumed before it had paused", token=lease.token)
            return "resumed"
        except WorkerStopping as stop:
            jobs.requeue(job, str(stop), token=lease.token)
            return "stopped"
        except (LeaseLost, ProcessLost, *REDIS_OUTAGES):
            raise
        except Exception as error:
            # Whatever a training job raises must end in its record; the traceback is in the log.
            log.exception("job failed", extra={"job": job})
            jobs.finish(job, JobState.FAILED, describe_failure(error), lease.token)
            return "failed"
        jobs.finish(job, JobState.SUCCEEDED, None, lease.token)
        log.info("job succeeded", extra={"job": job})
        return "succeeded"
    except LeaseLost as lost:
        LEASES_LOST.inc()
        log.warning("job abandoned", extra={"job": job, "reason": str(lost)})
        return "lost"
    except REDIS_OUTAGES:
        log.exception("job interrupted, Redis cannot be reached", extra={"job": job})
        return "interrupted"
    except ProcessLost:
        log.exception("job interrupted", extra={"job": job})
        return "interrupted"


def hand_back(learner: Learner) -> None:
    """Gives the running job to the next worker at once: for a process that is about to end in the middle of a step."""
    if learner.attempt is None:
        return
    job, lease = learner.attempt
    try:
        if learner.jobs.requeue(job, "the worker was told to stop in the middle of a step", token=lease.token):
            lease.release()
            send_learn(learner.app, job, learner.queue)
    except (LeaseLost, *REDIS_OUTAGES) as error:
        log.warning("job not handed back, its lease will expire", extra={"job": job, "error": str(error)})


def describe_failure(error: Exception) -> str:
    """The reason of a failed job: the type, unless it is ours and explains itself, and the message."""
    if isinstance(error, ServiceError | RolloutFailed):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _call_entry_point(learner: Learner, job: str, lease: Lease) -> None:
    stream = ExperienceStream(learner.redis, job)

    def send(tasks: list[RolloutTask]) -> None:
        send_rollouts(learner.app, {task.batch_id: task.model_dump(mode="json") for task in tasks})

    def alive(batch_ids: list[str]) -> set[str]:
        return leases_held(learner.redis, batch_ids) | (waiting(learner.redis, ROLLOUT_QUEUE) & set(batch_ids))

    training = learner.settings if isinstance(learner.settings, LearnerSettings) else None
    look_s = ROLLOUT_LOOK_S if training is None else training.rollout_look_s
    collector = Collector(stream, send, alive, look_s=look_s, block_ms=BLOCK_MS)
    store = open_store(learner.settings.store, learner.settings.store_remote, patience_s=TRAINING_PATIENCE_S)
    handle = JobHandle(job, learner.jobs, store, lease, collector, learner.stopping, curves=training is not None)
    with closing(handle):
        _run(learner, handle)


def _run(learner: Learner, handle: JobHandle) -> None:
    handle.raise_if_stopped()
    if learner.base is None:
        learner.base = learner.load_base(learner.settings)
        handle.raise_if_stopped()
    module, _, function = learner.entry_points[handle.config.kind].partition(":")
    runner: JobRunner = getattr(importlib.import_module(module), function)
    runner(handle, learner.base)
    if isinstance(handle.config, PpoJobConfig):
        conclude_training(handle, handle.config, learner.jobs, learner.app)


def load_base_model(settings: LearnerSettings) -> Any:
    """Loads the base model into this process, with its share of the cores.

    Threads wait passively: spinning ones take the cores from the services that this process waits for.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch = importlib.import_module("torch")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    load = importlib.import_module("rlhf.lm.loading").load_language_model
    return load(settings.model, device=settings.device, dtype=settings.dtype)
