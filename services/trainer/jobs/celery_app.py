"""The Celery app and its queues. JSON only, no result backend: results are job records, batches and files.

A message only says that something should be done. Who does it holds a lease, and work that has neither lease nor
message is put into the queue again, so a lost, doubled or late message changes nothing. Which job a learner takes when
a message comes is decided by the job records and not by the queue's order: see decision 0015.
"""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any, cast

from celery import Celery
from kombu import Queue
from kombu.exceptions import BatchPublishError
from redis import Redis

from services.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)
LEARNER_QUEUE = "learner"
ROLLOUT_QUEUE = "rollouts"
EVALUATION_QUEUE = "evaluations"
JOB_QUEUES = (LEARNER_QUEUE, EVALUATION_QUEUE)
"""Queues whose messages are jobs; see queue_of."""
LEARN = "trainer.learn"
ROLLOUT = "trainer.rollout"
MESSAGES_PER_ROUND_TRIP = 256


def create_celery(settings: TrainerSettings, *, retries: int = 3) -> Celery:
    """The app, for workers and for processes that only send.

    Args:
        settings: where Redis is.
        retries: of sending a message before the outage of Redis is raised: 3 take 0.6 s, 12 take 9 s (see `connect`).
    """
    app = Celery("trainer", broker=settings.redis_url.get_secret_value(), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_queues=[Queue(name) for name in (*JOB_QUEUES, ROLLOUT_QUEUE)],
        task_default_queue=ROLLOUT_QUEUE,
        task_create_missing_queues=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_track_started=False,
        task_publish_retry_policy={
            "max_retries": retries,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1.0,
        },
        worker_prefetch_multiplier=1,
        # Of the workers, for Flower. Of the senders it would double what asking for a rollout costs the learner.
        worker_send_task_events=True,
        # Cancelling needs a pool that can kill its tasks; ours end by themselves, and repeating them is harmless.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": settings.visibility_timeout_s,
            "socket_connect_timeout": 5.0,
            "socket_timeout": 30.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # No retry_on_timeout: with it kombu sends every message of a batch by itself.
        },
    )
    return app


def queue_of(kind: str | None) -> str:
    """The queue of a kind of job: evaluations need no learner, and do not wait for one."""
    return EVALUATION_QUEUE if kind == "evaluation" else LEARNER_QUEUE


def send_learn(app: Celery, job: str, queue: str = LEARNER_QUEUE) -> None:
    """Tells the workers of a queue that there is work.

    Args:
        app: sends.
        job: the reason why; one of them may take another first.
        queue: as queue_of gives it.
    """
    app.send_task(LEARN, args=[job], queue=queue, task_id=_task_id(job))


def send_rollouts(app: Celery, tasks: dict[str, dict[str, Any]]) -> None:
    """Asks rollout workers for batches, in one round trip to Redis. Args: tasks, batch id to RolloutTask as JSON."""
    with app.producer_pool.acquire(block=True) as producer:
        try:
            with producer.batch(MESSAGES_PER_ROUND_TRIP):
                for batch_id, task in tasks.items():
                    _send_rollout(app, batch_id, task, producer=producer)
            return
        except BatchPublishError as error:
            log.warning("messages may be lost, sending each again", extra={"error": str(error.__cause__ or error)})
    # One by one they wait for Redis to come back; a batch that is asked for twice is made once.
    for batch_id, task in tasks.items():
        _send_rollout(app, batch_id, task)


def waiting(redis: Redis, queue: str) -> set[str]:
    """The subjects (job ids, batch ids) of the messages that wait in a queue; not those that a worker holds."""
    subjects = set()
    for raw in cast(list[bytes], redis.lrange(queue, 0, -1)):
        task_id = json.loads(raw).get("headers", {}).get("id")
        if isinstance(task_id, str):
            subjects.add(task_id.partition("/")[0])
    return subjects


def queue_length(redis: Redis, queue: str) -> int:
    """Messages that wait in a queue."""
    return redis.llen(queue)


def _send_rollout(app: Celery, batch_id: str, task: dict[str, Any], **options: Any) -> None:
    # The queue needs no declaration to be written to, and asking for one takes a quarter of the time.
    options |= {"task_id": _task_id(batch_id), "argsrepr": f"({batch_id!r},)", "declare": []}
    app.send_task(ROLLOUT, args=[task], queue=ROLLOUT_QUEUE, **options)


def _task_id(subject: str) -> str:
    # The subject makes a waiting message recognisable; the rest keeps ids apart when it is sent again.
    return f"{subject}/{uuid.uuid4().hex[:12]}"
