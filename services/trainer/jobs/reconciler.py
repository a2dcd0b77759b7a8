"""Puts jobs back into the queue whose worker died or whose message was lost. Runs in the job API every few seconds.

A running job has a lease, and for each queued one there is a message that sends a learner to the queued jobs. What is
missing is made good; Celery's own redelivery would come only after the visibility timeout.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter

from celery import Celery
from redis import Redis

from rlhf.contracts.jobs import JobState
from services.trainer.jobs.celery_app import JOB_QUEUES, ROLLOUT_QUEUE, queue_length, queue_of, send_learn, waiting
from services.trainer.jobs.instruments import ACTIVE_JOBS, QUEUE_LENGTH, REDIS_BYTES, REQUEUED
from services.trainer.jobs.lease import lease_held
from services.trainer.jobs.store import LIVE, JobStore
from services.trainer.settings import ApiSettings

log = logging.getLogger(__name__)


def reconcile(redis: Redis, jobs: JobStore, app: Celery, settings: ApiSettings) -> list[str]:
    """Looks once at every job that has not ended.

    Returns:
        The jobs that were queued again. Several API replicas may run this: one at a time does.
    """
    turn = redis.set("lease:reconciler", uuid.uuid4().hex, nx=True, px=max(1, int(settings.reconcile_s * 900)))
    waits = {job for queue in JOB_QUEUES for job in waiting(redis, queue)}
    messages = {queue: queue_length(redis, queue) for queue in JOB_QUEUES}
    states: Counter[tuple[str, str]] = Counter()
    requeued: list[str] = []
    unsent: dict[str, list[str]] = {queue: [] for queue in JOB_QUEUES}
    queued: Counter[str] = Counter()
    for job in jobs.active():
        names = "state", "changed_at", "cancel", "crashes", "kind"
        state, changed_at, cancel, crashes, kind = jobs.fields(job, *names)
        if state is None or changed_at is None:
            jobs.forget(job)
            continue
        states[queue_of(kind), state] += 1
        if not turn or lease_held(redis, job):
            continue
        if cancel is not None:
            jobs.finish(job, JobState.CANCELLED, "cancelled by request", None)
        elif state == JobState.RUNNING:
            if _recover(jobs, job, int(crashes or 0), settings.max_crashes):
                send_learn(app, job, queue_of(kind))
                requeued.append(job)
        elif state == JobState.QUEUED:
            queued[queue_of(kind)] += 1
            if job not in waits and time.time() - float(changed_at) > settings.enqueue_grace_s:
                unsent[queue_of(kind)].append(job)
    # A worker may have used a job's message for another job and left that one's: the number tells what is lost.
    for queue in JOB_QUEUES:
        for job in unsent[queue][: max(0, queued[queue] - messages[queue])]:
            log.warning("message of a queued job was lost, sending it again", extra={"job": job})
            REQUEUED.labels("job").inc()
            send_learn(app, job, queue)
            requeued.append(job)
    for queue in JOB_QUEUES:
        for live in LIVE:
            ACTIVE_JOBS.labels(queue, live.value).set(states[queue, live.value])
    for queue in (*JOB_QUEUES, ROLLOUT_QUEUE):
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
