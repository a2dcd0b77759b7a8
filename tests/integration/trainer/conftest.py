"""Real worker processes, a real job API in this process, and a stand-in for policy and reward."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from rlhf.local.redis import free_port
from services.trainer.api.app import create_app
from services.trainer.settings import ApiSettings

ROOT = Path(__file__).parents[3]
LEASE_S, HEARTBEAT_S = 2.0, 0.4


class Worker:
    """A worker process with its log."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "default", "-m", *command],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def ready(self) -> "Worker":
        wait_for(lambda: '"message": "ready"' in self.log.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


class ApiProcess:
    """The job API as its own process; starts again on the same port."""

    process: subprocess.Popen[bytes]

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        port = free_port()
        self.environment = os.environ | environment | {"RLHF_PORT": str(port), "RLHF_RECONCILE_S": "0.3"}
        self.url, self.log = f"http://127.0.0.1:{port}", log

    def start(self) -> None:
        command = [sys.executable, "-W", "default", "-m", "services.trainer.api"]
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=file, stderr=file)
        wait_for(self.ready)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(tmp_path / "store")
    store.publish("reward_models", "rm", 1, lambda folder: (folder / "config.json").write_text("{}"))
    return store


@pytest.fixture
def environment(redis_url: str, store: ArtifactStore) -> dict[str, str]:
    """Of the worker processes; short times, so that recovery can be watched."""
    return {
        "RLHF_REDIS_URL": redis_url,
        "RLHF_STORE": str(store.root),
        "RLHF_LEASE_S": str(LEASE_S),
        "RLHF_HEARTBEAT_S": str(HEARTBEAT_S),
        "RLHF_MODEL": "unused",
        "RLHF_ROLLOUT_LOOK_S": "0.5",
        "RLHF_ROLLOUT_BACKOFF_S": "0.1",
        "RLHF_STOP_GRACE_S": "1.5",
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts `learner`, `rollouts` or `evaluations`; kills what is left at the end."""
    started: list[Worker] = []

    def start_worker(queue: str, **more: str) -> Worker:
        learner, other = ["tests.integration.trainer.fake_learner"], ["services.trainer.worker", queue]
        log = tmp_path / f"{queue}-{len(started)}.log"
        worker = Worker(learner if queue == "learner" else other, environment | more, log)
        started.append(worker)
        return worker

    yield start_worker
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


@pytest.fixture
def settings(redis_url: str, store: ArtifactStore) -> ApiSettings:
    return ApiSettings(
        redis_url=redis_url,
        store=store.root,
        lease_s=LEASE_S,
        heartbeat_s=HEARTBEAT_S,
        reconcile_s=0.3,
        enqueue_grace_s=1.0,
        max_crashes=2,
    )


@pytest.fixture
def api(settings: ApiSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def submit(api: TestClient) -> Callable[..., str]:
    """Submits a job of the fake learner; returns its id."""

    def submit_job(scenario: str, steps: int = 3, priority: int = 0, **more: object) -> str:
        body = {"kind": "ppo", "prompts": [scenario], "reward_model": "rm@1", "steps": steps, **more}
        response = api.post("/jobs", json=body, params={"priority": priority})
        assert response.status_code == 202, response.text
        return response.json()["id"]

    return submit_job


@pytest.fixture
def until(api: TestClient) -> Callable[..., dict]:
    """Waits until a job is in one of the states; returns its status."""

    def wait_until(job: str, *states: str, seconds: float = 60) -> dict:
        wait_for(lambda: api.get(f"/jobs/{job}").json()["state"] in states, seconds)
        return api.get(f"/jobs/{job}").json()

    return wait_until


@pytest.fixture
def api_process(environment: dict[str, str], tmp_path: Path) -> Iterator[ApiProcess]:
    process = ApiProcess(environment, tmp_path / "api.log")
    try:
        process.start()
        yield process
    finally:
        process.process.kill()
        process.process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
