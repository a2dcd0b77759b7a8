"""kill -9 of a learner process, again and again, on a real Redis: it ends with the weights of one left alone."""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import peft
import pytest
from redis import Redis
from safetensors.torch import load_file

from rlhf.artifacts.folders import sha256
from rlhf.artifacts.replaced import WEIGHTS, replaces_weights
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.jobs import FullConfig, PpoJobConfig
from rlhf.contracts.rollout import RolloutTask
from rlhf.lm.loading import LanguageModel
from rlhf.local.redis import RedisServer
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.experience.stream import ExperienceStream
from services.trainer.jobs.lease import lease_key
from services.trainer.jobs.series import read_series
from services.trainer.jobs.store import JobStore
from services.trainer.settings import TrainerSettings
from tests.integration.ppo.attempt import JOB, MAKING, POSITION, TASKS, run_attempt, wait_for
from tests.unit.ppo.stand_in import job_config, sampler, tiny_llama

STEPS, SHARDS, EPOCHS, MINIBATCHES = 8, 2, 2, 2
KILLS = 8
CONFIG = job_config(
    steps=STEPS,
    seed=3,
    rollout={"prompts_per_step": 8, "shards": SHARDS},
    update={"epochs": EPOCHS, "minibatches": MINIBATCHES, "learning_rate": 3e-3},
    kl={"schedule": "adaptive", "beta": 0.05, "target": 0.1, "horizon": 100},
)
FULL = CONFIG.model_copy(update={"lora": None, "full": FullConfig(top_layers=2)})
KEPT = [STEPS - 1, STEPS]
"""Of full weights."""
processes = multiprocessing.get_context("forkserver")

# peft's own loading reads an attribute that transformers 5 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@dataclass
class Run:
    """One run of the job: its store, its Redis database, and what the rollout worker made and pushed.

    Attributes:
        config: of the job.
        replay: batches of another run by id; empty: they are sampled from the adapter that the task names.
    """

    root: Path
    url: str
    config: PpoJobConfig = field(default_factory=lambda: CONFIG)
    replay: dict[str, tuple[RolloutTask, ExperienceBatch]] = field(default_factory=dict)
    made: dict[str, tuple[RolloutTask, ExperienceBatch]] = field(default_factory=dict)
    pushed: Counter[str] = field(default_factory=Counter)
    kills: int = 0

    def __post_init__(self) -> None:
        self.redis, self.store = Redis.from_url(self.url, protocol=2), ArtifactStore(self.root)
        self.redis.flushdb()
        (self.store.job_folder(JOB) / "config.json").write_text(self.config.model_dump_json())
        JobStore(self.redis, TrainerSettings(redis_url=self.url, store=self.root)).create(JOB, "ppo", STEPS)
        self.stop = threading.Event()
        self.worker = threading.Thread(target=self.work, name="rollout worker")

    def work(self) -> None:
        """A rollout worker: makes each task's batch from the published adapter and pushes it, twice to be sure."""
        stream = ExperienceStream(self.redis, JOB)
        while not self.stop.is_set():
            raw = self.redis.blmove(TASKS, MAKING, 0.05, "LEFT", "RIGHT")
            if raw is None:
                continue
            task = RolloutTask.model_validate_json(raw)
            if self.replay:
                known, batch = self.replay[task.batch_id]
                assert task == known
            else:
                folder = self.store.resolve("adapters", task.adapter) if task.adapter else None
                batch = sampler(policy_of(folder), lambda ids: float(ids[0] < 12))(task)
            self.made[task.batch_id] = task, batch
            for _ in range(2):
                self.pushed[task.batch_id] += stream.push(batch)
            self.redis.lrem(MAKING, 1, raw)

    def begin(self, calls: int | None = None) -> BaseProcess:
        """Starts an attempt; returns once it is at work."""
        before = self.position()
        process = processes.Process(target=run_attempt, args=(self.url, self.root, calls))
        process.start()
        assert wait_for(lambda: self.position() > before or not process.is_alive(), 120)
        return process

    def position(self) -> int:
        return int(self.redis.get(POSITION) or 0)

    def bury(self, process: BaseProcess) -> None:
        """After a kill: counts it, and takes the lease away as its expiry would."""
        process.join(120)
        assert process.exitcode in (0, -9)
        self.kills += process.exitcode == -9
        self.redis.delete(lease_key(JOB))

    def finish(self) -> None:
        """Lets an attempt run to the end."""
        process = self.begin()
        process.join(300)
        assert process.exitcode == 0

    def close(self) -> None:
        self.stop.set()
        self.worker.join(60)
        assert not self.worker.is_alive()
        self.redis.close()

    def __enter__(self) -> Run:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def final_folder(self) -> Path:
        return self.store.job_folder(JOB) / "checkpoints" / f"step-{STEPS:08d}"

    def finished(self) -> bool:
        return self.final_folder().exists()

    def ended(self) -> dict[str, object]:
        """Everything that must be equal, bit for bit."""
        folder = self.final_folder()
        saved = json.loads((folder / "state.json").read_text())
        rows = [{k: v for k, v in row.items() if not k.endswith(("_s", "per_s"))} for row in saved["history"]]
        adapters = {
            version: [sha256(path) for path in sorted(self.store.resolve("adapters", f"{JOB}@{version}").iterdir())]
            for version in self.store.versions("adapters", JOB)
        }
        sums = [sha256(folder / name) for name in ("parameters.safetensors", "optimizer.safetensors")]
        sums += [sha256(path) for path in sorted((self.store.job_folder(JOB) / "model").glob("*"))]
        return {"sums": sums, "kl": saved["state"], "rows": rows, "adapters": adapters}


def policy_of(folder: Path | None) -> LanguageModel:
    """The base model with an adapter or with replaced tensors. Args: folder, of the version; None: the base alone."""
    policy = tiny_llama()
    if folder is not None and replaces_weights(folder):
        policy.model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    elif folder is not None:
        peft.PeftModel.from_pretrained(policy.model, str(folder))
    return policy


@pytest.fixture(scope="module", autouse=True)
def forkserver(pytestconfig: pytest.Config) -> Iterator[None]:
    """Attempts fork from a server that has imported torch: a new process each, without the seconds of importing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
        patch.setenv("OMP_NUM_THREADS", "1")
        processes.set_forkserver_preload(["tests.integration.ppo.attempt"])
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Run:
    with Run(tmp_path_factory.mktemp("undisturbed"), redis_server.url) as run:
        run.finish()
        assert_every_batch_was_learnt_once(run)
        return run


def assert_every_batch_was_learnt_once(run: Run) -> None:
    ids = {f"{JOB}:{step}:{shard}" for step in range(STEPS) for shard in range(SHARDS)}
    # Each was taken by the stream once, though every task is pushed twice and some are asked for again.
    assert run.pushed == dict.fromkeys(ids, 1)
    # Acknowledged and gone; the last step's may wait, when the learner died between checkpoint and acknowledgement.
    left = ExperienceStream(run.redis, JOB).pending()
    assert run.redis.xlen(f"experience:{JOB}") == len(left)
    assert {entry.batch.step for entry in left} <= {STEPS - 1}
    # AdamW counts its steps.
    optimizer = load_file(run.final_folder() / "optimizer.safetensors")
    counts = {float(value) for name, value in optimizer.items() if name.endswith(".step")}
    assert counts == {float(STEPS * EPOCHS * MINIBATCHES)}
    saved = json.loads((run.final_folder() / "state.json").read_text())
    assert len(saved["history"]) == STEPS
    assert [row["step"] for row in read_series(run.store.job_folder(JOB))] == list(range(1, STEPS + 1))
    versions = list(range(1, STEPS + 1)) if run.config.full is None else KEPT
    assert sorted(run.store.versions("adapters", JOB)) == versions


def assert_same(run: Run, expected: Run) -> None:
    got, wanted = run.ended(), expected.ended()
    for part in wanted:
        assert got[part] == wanted[part], part


def test_killed_from_outside_at_random_moments(undisturbed: Run, redis_server: RedisServer, tmp_path: Path) -> None:
    # Aims at a random place in the next steps (eight marks a step), and then waits a random moment more.
    rng = random.Random(1)
    with Run(tmp_path, redis_server.url, replay=undisturbed.made) as run:
        while run.kills < KILLS and not run.finished():
            aim, pause = rng.randint(1, 14), rng.uniform(0, 0.05)
            process = run.begin()
            start = run.position()
            wait_for(lambda at=start + aim, p=process: run.position() >= at or not p.is_alive(), 120)
            time.sleep(pause)
            process.kill()
            run.bury(process)
        run.finish()
        assert run.kills >= KILLS // 2
        assert_every_batch_was_learnt_once(run)
        assert_same(run, undisturbed)


def test_killed_anywhere_in_its_code(undisturbed: Run, redis_server: RedisServer, tmp_path: Path) -> None:
    # Each attempt kills itself at a random Python call, of which a step makes about 60,000. Here the rollouts are
    # sampled anew from what was published.
    rng = random.Random(2)
    with Run(tmp_path, redis_server.url) as run:
        while run.kills < KILLS and not run.finished():
            run.bury(run.begin(calls=rng.randint(1, 150_000)))
        run.finish()
        assert run.kills >= KILLS // 2
        assert_every_batch_was_learnt_once(run)
        assert_same(run, undisturbed)


def test_full_weights_killed_anywhere(redis_server: RedisServer, tmp_path: Path) -> None:
    with Run(tmp_path / "undisturbed", redis_server.url, FULL) as undisturbed:
        undisturbed.finish()
        assert_every_batch_was_learnt_once(undisturbed)
    # Without peft's hooks a step makes fewer calls.
    rng = random.Random(4)
    with Run(tmp_path / "killed", redis_server.url, FULL) as run:
        while run.kills < KILLS and not run.finished():
            run.bury(run.begin(calls=rng.randint(1, 40_000)))
        run.finish()
        assert run.kills >= KILLS // 2
        assert_every_batch_was_learnt_once(run)
        assert_same(run, undisturbed)
