"""`make bench-faults`: kill -9 of everything, again and again, during real PPO jobs, and a reward service gone ill.

The system runs as processes on a tiny random model: Redis with its append-only file, policy, reward, trainer-api, a
learner, two rollout workers. Whatever dies is started again, as Compose would. Three jobs of one config:

    undisturbed   nothing happens
    learner       the learner alone is killed; the weights must be those of the undisturbed run, bit for bit
    everything    --kills times anything is killed, at moments drawn over the job's course; the same weights again

then one job for each illness of the reward service (500, hanging, NaN; --outage seconds): no reward may enter a batch
that the real service did not give, and the job must go on, or stop with the reason.

It fails when a job does not end by itself, a batch was not learned exactly once (benchmarks/faulting/record.py says
how that is seen), or an invented reward was learned from.

make bench-faults ARGS="--kills 50"
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faulting.ill_reward import ILLNESSES, IllReward
from benchmarks.faulting.journal import read_journal
from benchmarks.faulting.keeper import Keeper
from benchmarks.faulting.programs import KEY, NAMES, System, prepare
from benchmarks.faulting.record import Record, read_record
from benchmarks.faulting.report import Outages, report
from benchmarks.faulting.tiny_model import save_tiny_llama
from rlhf.artifacts.store import ArtifactStore
from rlhf.clients.http import NO_RETRIES
from rlhf.clients.trainer import TrainerClient
from rlhf.contracts.errors import ServiceError
from rlhf.contracts.jobs import JobStatus, PpoJobConfig, RewardModelJobConfig
from rlhf.local.signals import StopRequested, StopSignals
from services.trainer.jobs.series import read_series

STALLED_S = 300.0
"""Without a step or a kill for so long a job counts as hanging."""
SUBJECTS = ("sea", "sun", "ants", "iron", "rain", "tea", "ice")


@dataclass(frozen=True)
class Kill:
    """Who is killed when the job has done so many steps, and so many seconds after that."""

    step: int
    pause: float
    name: str


def main() -> int:
    """Runs and prints; returns 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in the third run; in the second, 3 for 10 of them")
    parser.add_argument("--steps", type=int, default=60, help="of each job")
    parser.add_argument("--outage", type=float, default=30.0, help="seconds of each illness; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of jobs and kills")
    parser.add_argument("--folder", type=Path, help="keeps logs, store and Redis' files here; default: a temporary one")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rlhf-faults-")))
        stack.enter_context(StopSignals())
        try:
            return run(options, folder.resolve())
        except StopRequested as stop:
            return stop.exit_code


def run(options: argparse.Namespace, folder: Path) -> int:
    """All runs, one after the other on one system."""
    draw = random.Random(options.seed)
    with IllReward() as reward, Keeper(draw) as keeper:
        system = prepare(folder, save_tiny_llama(folder / "model"), reward.url)
        reward.upstream = system.reward
        keeper.start([system.programs["redis"]])
        keeper.start(program for name, program in system.programs.items() if name != "redis")
        watch = Watch(system, keeper)
        reward_model = f"{watch.follow(watch.submit(reward_model_config()), []).id}@1"
        config = ppo_config(options, reward_model)
        learner_kills = options.kills * 3 // 10
        runs = {
            "undisturbed": watch.run(config, []),
            "learner": watch.run(config, plan(learner_kills, options.steps, ["learner"], draw)),
            "everything": watch.run(config, plan(options.kills, options.steps, NAMES, draw)),
        }
        short = config.model_copy(update={"steps": 6})
        illnesses = ILLNESSES if options.outage else ()
        outages: Outages = {ill: run_outage(watch, reward, ill, short, options.outage) for ill in illnesses}
        return report(config, runs, outages, keeper, planned=learner_kills + options.kills)


def reward_model_config() -> RewardModelJobConfig:
    """A small ensemble on pairs that differ in their length."""
    pairs = [{"prompt": f"Say {n}.", "chosen": f"{n}, and gladly.", "rejected": f"{n}"} for n in range(24)]
    small = {"members": 2, "epochs": 1, "batch_size": 8, "lora_r": 2, "max_length": 128}
    return RewardModelJobConfig.model_validate({"kind": "reward_model", "pairs": pairs, **small})


def ppo_config(options: argparse.Namespace, reward_model: str) -> PpoJobConfig:
    """Two shards a step, so that two workers are at it at once."""
    return PpoJobConfig.model_validate(
        {
            "kind": "ppo",
            "prompts": [f"Tell me about {subject}." for subject in SUBJECTS],
            "reward_model": reward_model,
            "steps": options.steps,
            "seed": options.seed,
            "rollout": {"prompts_per_step": 4, "samples_per_prompt": 2, "shards": 2, "max_new_tokens": 12},
            "lora": {"r": 4},
        }
    )


def plan(kills: int, steps: int, names: Sequence[str], draw: random.Random) -> list[Kill]:
    """Kills spread over three quarters of a job, so that none comes after its end; each name as often as the others."""
    victims = [names[index % len(names)] for index in range(kills)]
    draw.shuffle(victims)
    moments = sorted(draw.randrange(1, max(2, 3 * steps // 4)) for _ in range(kills))
    return [Kill(step, draw.uniform(0, 1), name) for step, name in zip(moments, victims, strict=True)]


class Watch:
    """Submits jobs, kills during them, and waits for their end."""

    def __init__(self, system: System, keeper: Keeper) -> None:
        """Args: system, running; keeper, of its processes."""
        self.system, self.keeper = system, keeper
        self.client = TrainerClient(system.trainer, KEY)
        self._impatient = TrainerClient(system.trainer, KEY, timeout_s=3.0, retries=NO_RETRIES)

    def submit(self, config: PpoJobConfig | RewardModelJobConfig) -> str:
        """Returns the job's id."""
        return self.client.submit(config).id

    def run(self, config: PpoJobConfig, kills: list[Kill]) -> Record:
        """One job from submission to its end."""
        started = time.monotonic()
        status = self.follow(self.submit(config), kills)
        return self.read(status, time.monotonic() - started)

    def read(self, status: JobStatus, seconds: float) -> Record:
        """What a job left."""
        return read_record(status, seconds, self.system.store, self.system.journal)

    def follow(self, job: str, kills: list[Kill]) -> JobStatus:
        """Kills as planned until the job has ended.

        Raises:
            TimeoutError: nothing moves any more.
        """
        left, due, moved = list(kills), None, time.monotonic()
        reached = -1
        while True:
            self.keeper.tend()
            now, step = time.monotonic(), self.steps(job)
            if step > reached:
                reached, moved = step, now
            if left and reached >= left[0].step:
                due = now + left[0].pause if due is None else due
                if now >= due and self.keeper.kill(left[0].name):
                    say(f"  step {reached}: killed {left.pop(0).name}, {len(left)} to go")
                    due, moved = None, now
            status = self.status(job)
            if status is not None and status.state.final:
                return status
            if now - moved > STALLED_S:
                raise TimeoutError(f"job {job} hangs at step {reached}: {status}; logs in {self.system.store.parent}")
            time.sleep(0.05)

    def steps(self, job: str) -> int:
        """Steps done, by the file: it answers whatever is dead at present."""
        return len(read_series(ArtifactStore(self.system.store).job_folder(job)))

    def status(self, job: str) -> JobStatus | None:
        """What the API says; None while it cannot answer."""
        try:
            return self._impatient.job(job)
        except ServiceError:
            return None

    def tend(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Lets things run for some seconds, or until something is so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            self.keeper.tend()
            time.sleep(0.05)


def run_outage(
    watch: Watch, reward: IllReward, illness: str, config: PpoJobConfig, seconds: float
) -> dict[str, object]:
    """One job; after its first step the service is ill for a while."""
    say(f"the reward service is ill: {illness}")
    harmed, job = reward.harmed, watch.submit(config)
    watch.tend(STALLED_S, until=lambda: watch.steps(job) >= 1)
    reward.illness = illness
    watch.tend(seconds)
    during = watch.steps(job)
    reward.illness = None
    status = watch.follow(job, [])
    batches = read_journal(watch.system.journal, job).batches.values()
    rewards = [float(value) for batch in batches for value in batch.rewards]
    told = [event.message for event in watch.client.events(job) if event.level == "warning"]
    return {
        "state": status.state.value,
        "steps": f"{during} during, {status.step} of {config.steps} in the end",
        "requests_harmed": reward.harmed - harmed,
        "rewards": len(rewards),
        "rewards_zero": rewards.count(0.0),
        "rewards_invented": sum(value not in reward.given for value in rewards),
        "told": status.reason or next(iter(told), None),
    }


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
