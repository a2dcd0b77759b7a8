"""One attempt at a PPO job in a process of its own: the real learner on the real stream, lease, records and store."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from redis import Redis

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.jobs import JobState
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.collector import Collector
from services.trainer.experience.stream import ExperienceStream
from services.trainer.jobs.handle import JobHandle
from services.trainer.jobs.lease import acquire_lease
from services.trainer.jobs.store import JobStore
from services.trainer.ppo.learner import run_ppo
from services.trainer.settings import TrainerSettings
from tests.unit.ppo.stand_in import tiny_llama

JOB = "ppo-kill"
TASKS, MAKING, POSITION = "tasks", "making", "position"
"""Redis lists of the tasks that wait and that a worker is at, and a counter of what the learner did."""


def marked(work: Callable[..., Any], mark: Callable[[], Any]) -> Callable[..., Any]:
    """The same, with a mark before and after: places to aim at."""

    def run(*args: Any, **kwargs: Any) -> Any:
        mark()
        result = work(*args, **kwargs)
        mark()
        return result

    return run


def die_after(job: JobHandle, calls: int) -> None:
    """kill -9 of this process in the n-th Python call after the model is made: anywhere, whatever the machine's speed.

    The count begins with the first thing the learner does: `event` when it resumes, `enqueue` when it is the first.
    """
    left = [calls]

    def count(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def begin() -> None:
        if left[0] == calls:
            sys.setprofile(count)

    for name in ("event", "enqueue"):
        setattr(job, name, marked(getattr(job, name), begin))


def run_attempt(redis_url: str, root: Path, calls: int | None) -> None:
    """Runs the job to its end. Args: calls, Python calls after which the process kills itself; None: it does not."""
    torch.set_num_threads(1)
    redis = Redis.from_url(redis_url, protocol=2)
    jobs = JobStore(redis, TrainerSettings(redis_url=redis_url, store=root))
    lease = acquire_lease(redis, JOB, uuid.uuid4().hex, ttl_s=60, heartbeat_s=1)
    assert lease is not None, "the attempt before is dead and its lease is gone"
    assert jobs.begin(JOB, lease.token)

    def alive(ids: list[str]) -> set[str]:
        waiting = [*redis.lrange(TASKS, 0, -1), *redis.lrange(MAKING, 0, -1)]
        return {RolloutTask.model_validate_json(task).batch_id for task in waiting} & set(ids)

    def send(tasks: list[RolloutTask]) -> None:
        redis.rpush(TASKS, *(task.model_dump_json() for task in tasks))

    collector = Collector(ExperienceStream(redis, JOB), send, alive, look_s=1.0, block_ms=100)
    job = JobHandle(JOB, jobs, ArtifactStore(root), lease, collector, threading.Event())
    for name in ("enqueue", "pull", "acknowledge", "progress"):
        setattr(job, name, marked(getattr(job, name), lambda: redis.incr(POSITION)))
    redis.incr(POSITION)
    if calls is not None:
        die_after(job, calls)
    run_ppo(job, tiny_llama())
    sys.setprofile(None)
    jobs.finish(JOB, JobState.SUCCEEDED, None, lease.token)
    lease.release()


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition became true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
