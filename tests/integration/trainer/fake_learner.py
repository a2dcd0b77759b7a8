"""A learner worker whose jobs do no training: what they do is named by the job's first prompt."""

import os
import signal
import sys
import threading
import time

from rlhf.contracts.jobs import BestVersion
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.rollout import RolloutTask
from services.trainer.jobs.handle import JobHandle, ServicesFailed
from services.trainer.jobs.store import JobStore
from services.trainer.settings import LearnerSettings
from services.trainer.worker import run_learner


def run(job: JobHandle, base: str) -> None:
    assert base == "base"
    scenarios = {"count": count, "fail": fail, "hang": hang, "pull": pull, "die": die, "train": train}
    scenarios |= {"die trained": die_trained}
    scenarios[job.config.prompts[0]](job)


def count(job: JobHandle) -> None:
    """Counts to `steps`, with a checkpoint after each, a tenth of a second apart."""
    checkpoint = job.folder / "checkpoint"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(done + 1, job.config.steps + 1):
        job.raise_if_stopped()
        time.sleep(0.1)
        job.progress(step, job.config.steps, {"step_squared": step**2, "odd": float("nan")})
        checkpoint.write_text(str(step))


def train(job: JobHandle) -> None:
    """Publishes a version a step, the last but one the best."""
    for step in range(1, job.config.steps + 1):
        name = job.store.publish("adapters", job.id, step, lambda folder: (folder / "a.json").write_text("{}"))
        best = BestVersion(step=max(1, step - 1), adapter=name, reward=0.0, kl=0.0)
        job.progress(step, job.config.steps, {}, best)


def die_trained(job: JobHandle) -> None:
    """Trains; the first attempt is killed where the job's end would be recorded."""
    train(job)
    begun = job.folder / "begun"
    if not begun.exists():
        begun.touch()
        JobStore.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def fail(job: JobHandle) -> None:
    job.event("about_to_fail", "on purpose", level="warning", data={"why": "a test"})
    raise ValueError("broken on purpose")


def hang(job: JobHandle) -> None:
    """A step that never ends and never looks."""
    job.event("hanging", "now")
    threading.Event().wait()


def die(job: JobHandle) -> None:
    """What the kernel does to a process without memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def pull(job: JobHandle) -> None:
    """One step after the other; says what came."""
    checkpoint = job.folder / "checkpoint"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    shards = job.config.rollout.shards
    for step in range(done, job.config.steps):
        job.enqueue([task(job, step, shard) for shard in range(shards)])
        batches = job.pull(step, shards)
        if failed := [batch for batch in batches if not len(batch)]:
            job.discard(failed)
            raise ServicesFailed(failed[0].failures[0])
        responses = [response for batch in batches for response in batch.responses]
        job.progress(step + 1, job.config.steps, {"samples": len(responses)})
        job.event("pulled", " ".join(responses), data={"failures": [f for batch in batches for f in batch.failures]})
        checkpoint.write_text(str(step + 1))
        job.acknowledge(batches)


def task(job: JobHandle, step: int, shard: int) -> RolloutTask:
    return RolloutTask(
        job=job.id,
        step=step,
        shard=shard,
        policy_version=0,
        adapter=None,
        prompts=[f"prompt-{step}-{shard}"],
        sampling=SamplingParams(n=2, seed=10 * step + shard),
        reward_model=job.config.reward_model,
        aggregation=job.config.aggregation,
    )


if __name__ == "__main__":
    sys.exit(run_learner(LearnerSettings(), {"ppo": f"{__spec__.name}:run"}, lambda settings: "base"))
