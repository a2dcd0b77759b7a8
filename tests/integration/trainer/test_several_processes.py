"""The real learner as two processes under torchrun: a job survives kill -9 of one, pauses, is cancelled, stops."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from fastapi.testclient import TestClient
from redis import Redis
from safetensors.torch import load_file

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.rollout import RolloutTask
from rlhf.lm.loading import load_language_model
from services.trainer.experience.stream import ExperienceStream
from services.trainer.jobs.celery_app import ROLLOUT_QUEUE
from services.trainer.jobs.series import read_series
from services.trainer.ppo.learner import PpoLearner
from tests.integration.ppo.member import sample
from tests.integration.trainer.conftest import Worker, wait_for
from tests.tiny_models import save_tiny_llama
from tests.unit.ppo.stand_in import MemoryJob, job_config

STEPS = 6
CONFIG = job_config(
    steps=STEPS,
    rollout={"prompts_per_step": 5, "samples_per_prompt": 2, "shards": 2},
    update={"epochs": 2, "minibatches": 2, "learning_rate": 3e-3},
)


class RolloutWorker:
    """Takes rollout tasks from Celery's queue and pushes their batches, up to a step that it was told to wait at."""

    def __init__(self, redis: Redis) -> None:
        self.redis, self.limit, self.stopped = redis, 0, threading.Event()
        self.thread = threading.Thread(target=self.work, name="rollout worker")
        self.thread.start()

    def work(self) -> None:
        held: list[RolloutTask] = []
        while not self.stopped.is_set():
            if (answer := self.redis.blpop([ROLLOUT_QUEUE], 0.1)) is not None:
                arguments, *_ = json.loads(base64.b64decode(json.loads(answer[1])["body"]))
                held.append(RolloutTask.model_validate(arguments[0]))
            for task in [task for task in held if task.step < self.limit]:
                held.remove(task)
                ExperienceStream(self.redis, task.job).push(sample(task))

    def close(self) -> None:
        self.stopped.set()
        self.thread.join(30)


@pytest.fixture
def rollouts(redis_client: Redis) -> Iterator[RolloutWorker]:
    worker = RolloutWorker(redis_client)
    yield worker
    worker.close()


@pytest.fixture
def learner(environment: dict[str, str], tmp_path: Path) -> Iterator[Worker]:
    settings = environment | {
        "RLHF_MODEL": str(save_tiny_llama(tmp_path / "tiny")),
        "OMP_NUM_THREADS": "1",
        "RLHF_STOP_GRACE_S": "20",
        "RLHF_PEER_TIMEOUT_S": "120",
        # Two processes on a busy machine: nothing here waits for a lease to run out.
        "RLHF_LEASE_S": "20",
    }
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "9"]
    worker = Worker([*torchrun, "-m", "services.trainer.worker", "learner"], settings, tmp_path / "learner.log")
    yield worker
    if worker.process.poll() is None:
        for child in psutil.Process(worker.process.pid).children(recursive=True):
            child.kill()
        worker.kill()


def members(learner: Worker) -> dict[int, psutil.Process]:
    """The living processes by rank."""
    found = {}
    for child in psutil.Process(learner.process.pid).children():
        # One that has just ended has no environment.
        with contextlib.suppress(psutil.Error, KeyError):
            found[int(child.environ()["RANK"])] = child
    return found


def submit(api: TestClient) -> str:
    answer = api.post("/jobs", json=CONFIG.model_dump(mode="json"))
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def names(api: TestClient, job: str) -> list[str]:
    return [event["name"] for event in api.get(f"/jobs/{job}/events").json()]


def learn_alone(model: Path, root: Path, job: str) -> ArtifactStore:
    """The same job in one process, this one."""
    torch.set_num_threads(1)
    memory = MemoryJob(root, CONFIG, sample, job)
    PpoLearner(memory, load_language_model(str(model))).run()
    return memory.store


@pytest.mark.timeout(1200)
def test_two_processes_do_what_one_does_whatever_happens_to_them(
    learner: Worker,
    rollouts: RolloutWorker,
    api: TestClient,
    store: ArtifactStore,
    until: Callable[..., dict],
    tmp_path: Path,
) -> None:
    def step(job: str) -> int:
        return api.get(f"/jobs/{job}").json()["step"]

    job = submit(api)
    # The follower dies while the learner waits for rollouts: the job goes on from its checkpoint.
    rollouts.limit = 1
    wait_for(lambda: step(job) == 1, 400)
    before = {process.pid for process in members(learner).values()}
    os.kill(members(learner)[1].pid, signal.SIGKILL)
    wait_for(lambda: len({p.pid for p in members(learner).values()} - before) == 2, 120)
    # A pause gives the processes back in good order, a resume goes on.
    rollouts.limit = 2
    wait_for(lambda: step(job) == 2, 400)
    alive = {process.pid for process in members(learner).values()}
    assert api.post(f"/jobs/{job}/pause").status_code == 202
    until(job, "paused", seconds=120)
    assert api.post(f"/jobs/{job}/resume").status_code == 202
    rollouts.limit = STEPS
    status = until(job, "succeeded", "failed", seconds=180)
    assert status["state"] == "succeeded", (status, learner.log.read_text()[-5000:])
    assert [row["step"] for row in read_series(store.job_folder(job))] == list(range(1, STEPS + 1))

    alone = learn_alone(tmp_path / "tiny", tmp_path / "alone", job)
    for version in range(1, STEPS + 1):
        got, expected = (
            load_file(each.resolve("adapters", f"{job}@{version}") / "adapter_model.safetensors")
            for each in (store, alone)
        )
        assert got.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-5)

    # The same processes take the next job. Nobody samples for it: it is cancelled while it waits.
    rollouts.limit = 0
    cancelled = submit(api)
    until(cancelled, "running", seconds=120)
    assert api.post(f"/jobs/{cancelled}/cancel").status_code == 202
    until(cancelled, "cancelled", seconds=120)
    assert {process.pid for process in members(learner).values()} == alive

    # SIGTERM to torchrun: the running job goes back into the queue, and both processes leave by themselves.
    waiting = submit(api)
    until(waiting, "running", seconds=120)
    learner.process.send_signal(signal.SIGTERM)
    learner.process.wait(120)
    assert api.get(f"/jobs/{waiting}").json()["state"] == "queued"
    assert "process_lost" not in names(api, waiting)
    assert not any(psutil.pid_exists(pid) for pid in alive)
