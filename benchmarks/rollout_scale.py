"""`make bench-rollout-scale`: how much of 64 rollout workers the queue lets through, and what sampling ahead gains.

The queue is the real one: Redis, Celery workers, leases, pushed batches, the learner's collector, acknowledgements.
The workers are simulated: each sleeps where policy and reward would work (`benchmarks/simulated_rollouts.py`), then
pushes a batch of 4 prompts × 4 samples × 64 tokens. The learner sleeps where it would learn.

    throughput   batches a second of steps without learning, over workers / seconds of a rollout
    overhead     share of a step that the learner works for the queue: asking, reading (processor time), acknowledging
    ahead        seconds of a step with learning as long as a rollout, on-policy and one step ahead

make bench-rollout-scale ARGS="--workers 64 --rollout 10 --steps 4"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESSES, PROMPTS_PER_SHARD, SAMPLES = 4, 4, 4


@dataclass
class Timing:
    """Seconds of one run, the first step left out: it waits for workers that only just began."""

    steps: int
    total: float
    queue: float

    @property
    def step(self) -> float:
        """Of one step."""
        return self.total / self.steps


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--rollout", type=float, default=10.0, help="seconds of one rollout (default: 10)")
    parser.add_argument("--steps", type=int, default=4, help="measured in each run, after one that is not")
    options = parser.parse_args()
    from rlhf.local.redis import RedisServer

    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder), password="bench") as redis,
        workers(redis.url, Path(folder), options.workers, options.rollout),
    ):
        plain = run("plain", redis.url, options, ahead=0, learn_s=0.0)
        on_policy = run("on-policy", redis.url, options, ahead=0, learn_s=options.rollout)
        ahead = run("ahead", redis.url, options, ahead=1, learn_s=options.rollout)
    report(options, plain, on_policy, ahead)
    return 0


@contextmanager
def workers(url: str, folder: Path, count: int, seconds: float) -> Iterator[None]:
    """Worker processes with `count` rollouts at a time between them."""
    each = -(-count // PROCESSES)
    environment = os.environ | {"RLHF_REDIS_URL": url, "RLHF_STORE": str(folder), "RLHF_LOG_LEVEL": "warning"}
    environment |= {"RLHF_POLICY_URL": "http://none", "RLHF_REWARD_URL": "http://none"}
    environment |= {"RLHF_ROLLOUT_CONCURRENCY": str(each), "SIMULATED_ROLLOUT_S": str(seconds)}
    command = [sys.executable, "-m", "benchmarks.simulated_rollouts"]
    started = [subprocess.Popen(command, env=environment) for _ in range(PROCESSES)]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


def run(job: str, url: str, options: argparse.Namespace, *, ahead: int, learn_s: float) -> Timing:
    """One job's steps, as the learner does them.

    Args:
        job: its id.
        url: of Redis.
        options: of the command.
        ahead: steps sampled ahead.
        learn_s: seconds that a step is learned for.
    """
    from pydantic import SecretStr

    from rlhf.contracts.jobs import PpoJobConfig
    from services.trainer.experience.collector import Collector
    from services.trainer.experience.stream import ExperienceStream
    from services.trainer.jobs.celery_app import ROLLOUT_QUEUE, create_celery, send_rollouts, waiting
    from services.trainer.jobs.connection import BLOCK_MS, connect
    from services.trainer.jobs.lease import leases_held
    from services.trainer.jobs.store import JobStore
    from services.trainer.ppo.schedule import rollout_tasks, steps_to_ask_for
    from services.trainer.settings import TrainerSettings

    settings = TrainerSettings(redis_url=SecretStr(url), store=Path())
    redis, app = connect(settings), create_celery(settings)
    rollout: dict[str, Any] = {"prompts_per_step": PROMPTS_PER_SHARD * options.workers, "shards": options.workers}
    rollout |= {"samples_per_prompt": SAMPLES, "max_staleness": ahead}
    prompts = [f"prompt {index}" for index in range(1000)]
    config = PpoJobConfig.model_validate(
        {"kind": "ppo", "prompts": prompts, "reward_model": "rm@1", "steps": options.steps + 1, "rollout": rollout}
    )
    JobStore(redis, settings).create(job, "ppo", config.steps)

    def alive(ids: list[str]) -> set[str]:
        return leases_held(redis, ids) | (waiting(redis, ROLLOUT_QUEUE) & set(ids))

    def send(tasks: list[Any]) -> None:
        send_rollouts(app, {task.batch_id: task.model_dump(mode="json") for task in tasks})

    collector = Collector(ExperienceStream(redis, job), send, alive, look_s=5.0, block_ms=BLOCK_MS)
    queue = total = 0.0
    for step in range(config.steps):
        began = time.perf_counter()
        for each in steps_to_ask_for(config, step):
            collector.enqueue(rollout_tasks(config, job, each))
        asked, idle = time.perf_counter(), time.process_time()
        batches = collector.pull(step, options.workers, lambda: None)
        worked = time.process_time()  # of the pull only what is no waiting for workers
        time.sleep(learn_s)
        learned = time.perf_counter()
        collector.acknowledge(batches)
        ended = time.perf_counter()
        if step:
            queue += (asked - began) + (worked - idle) + (ended - learned)
            total += ended - began
    return Timing(options.steps, total, queue)


def report(options: argparse.Namespace, plain: Timing, on_policy: Timing, ahead: Timing) -> None:
    """The table, and the same as JSON on the last line."""
    ideal = options.workers / options.rollout
    throughput = options.workers / plain.step
    print(f"\n{options.workers} simulated workers, {options.rollout:g} s a rollout, {options.steps} steps a run\n")
    print(f"throughput  {throughput:6.2f} batches/s of {ideal:.2f} ideal: {throughput / ideal:.3f}")
    print(f"overhead    {plain.queue / plain.total:.2%} of a step of {plain.step:.2f} s")
    print(f"ahead       {on_policy.step:.2f} s a step on-policy, {ahead.step:.2f} s one step ahead")
    figures = {
        "workers": options.workers,
        "rollout_s": options.rollout,
        "throughput_of_ideal": throughput / ideal,
        "queue_overhead": plain.queue / plain.total,
        "step_s": {"plain": plain.step, "on_policy": on_policy.step, "ahead": ahead.step},
        "gain_ahead": on_policy.step / ahead.step,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    sys.exit(main())
