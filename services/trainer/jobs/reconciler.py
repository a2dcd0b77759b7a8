"""Puts jobs back into the queue whose worker died or whose message was lost. Runs in the job API every few seconds.

A live job always has a lease (a worker runs it) or a message (it waits). One that has neither is lost; Celery's own
redelivery would come only after the visibility timeout.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter

from celery import Celery
from redis import Redis

from rlhf.contracts.jobs import JobState
from services.trainer.jobs.celery_app import LEARNER_QUEUE, ROLLOUT_QUEUE, queue_length, send_learn, waiting
from services.trainer.jobs.instruments import ACTIVE_JOBS, QUEUE_LENGTH, REDIS_BYTES, REQUEUED
from services.trainer.jobs.lease import lease_held
from services.trainer.jobs.store import JobStore
from services.trainer.settings import ApiSettings

log = logging.getLogger(__name__)


def reconcile(redis: Redis, jobs: JobStore, app: Celery, settings: ApiSettings) -> list[str]:
    """Looks once at every job that has not ended.

    Returns:
        The jobs that were queued again. Several API replicas may run this: one at a time does.
    """
    turn = redis.set("lease:reconciler", uuid.uuid4().hex, nx=True, px=max(1, int(settings.reconcile_s * 900)))
    waits = waiting(redis, LEARNER_QUEUE)
    states: Counter[str] = Counter()
    requeued = []
    for job in jobs.active():
        state, changed_at, cancel, crashes = jobs.fields(job, "state", "changed_at", "cancel", "crashes")
        if state is None or changed_at is None:
            jobs.forget(job)
            continue
        states[state] += 1
        if not turn or state == JobState.PAUSED or lease_held(redis, job):
            continue
        if cancel is not None:
            jobs.finish(job, JobState.CANCELLED, "cancelled by request", None)
        elif state == JobState.RUNNING:
            if _recover(jobs, job, int(crashes or 0), settings.max_crashes):
                send_learn(app, job)
                requeued.append(job)
        elif job not in waits and time.time() - float(changed_at) > settings.enqueue_grace_s:
            log.warning("message of a queued job was lost, sending it again", extra={"job": job})
            REQUEUED.labels("job").inc()
            send_learn(app, job)
            requeued.append(job)
    for live in (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED):
        ACTIVE_JOBS.labels(live.value).set(states[live.value])
    for queue in (LEARNER_QUEUE, ROLLOUT_QUEUE):
        QUEUE_LENGTH.labels(queue).set(queue_length(redis, queue))
    memory = redis.info("memory")
    REDIS_BYTES.labels("used").set(memory["used_memory"])
    REDIS_BYTES.labels("limit").set(memory["maxmemory"])
    return requeued


def _recover(jobs: JobStore, job: str, crashes: int, max_crashes: int) -> bool:
    """Queues a job whose learner died, or fails it when it kills every learner. True when it is queued."""
    if crashes >= max_crashes:
        reason = (
            f"the learner died {crashes + 1} times in a row without a step done; its log says why. A process that "
            "vanishes without a message was mostly killed for its memory: lower tokens_per_microbatch or batch_size"
        )
        jobs.finish(job, JobState.FAILED, reason, None)
        return False
    log.warning("learner died, queueing its job again", extra={"job": job, "crashes": crashes + 1})
    REQUEUED.labels("job").inc()
    return jobs.requeue(job, "the learner died; the next one goes on from the last checkpoint", crashed=True)
