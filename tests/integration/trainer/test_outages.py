"""Processes that lose Redis, find none, or are told to stop: they wait, go on, and end when they should."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from rlhf.local.redis import RedisServer, free_port, prepare
from services.trainer.api.app import create_app
from services.trainer.jobs.celery_app import (
    LEARNER_QUEUE,
    ROLLOUT_QUEUE,
    create_celery,
    send_learn,
    send_rollouts,
    waiting,
)
from services.trainer.jobs.connection import REDIS_OUTAGES, WORKER_RETRIES
from services.trainer.jobs.series import read_series
from services.trainer.settings import ApiSettings
from tests.integration.trainer.conftest import ROOT, ApiProcess, Worker, wait_for

Start = Callable[..., Worker]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may stop and start again; same port, same data."""
    server = RedisServer(tmp_path / "redis", port=free_port(), password="secret")
    server.start()
    yield server
    server.stop()


def test_redis_keeps_its_data_and_its_password(own_redis: RedisServer, tmp_path: Path) -> None:
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        client.set("kept", "yes")
        config = client.config_get("append*") | client.config_get("maxmemory-policy")
        assert (config["appendonly"], config["appendfsync"], config["maxmemory-policy"]) == (
            "yes",
            "everysec",
            "noeviction",
        )
    own_redis.stop()
    own_redis.start()
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        assert client.get("kept") == "yes"
    with redis.Redis.from_url(own_redis.url.replace("secret", "guess")) as client, pytest.raises(redis.RedisError):
        client.ping()
    assert (tmp_path / "redis/redis.conf").stat().st_mode & 0o077 == 0


def test_redis_that_cannot_start_says_why(own_redis: RedisServer, tmp_path: Path) -> None:
    port = int(own_redis.url.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(RuntimeError, match="Address already in use"), RedisServer(tmp_path / "second", port=port):
        pass
    setup = prepare(tmp_path / "third", port=port)
    assert "secret" not in " ".join(setup.command)
    assert setup.probe() is not None, "another server's password"


def test_a_job_survives_a_restart_of_redis(
    own_redis: RedisServer, start: Start, environment: dict[str, str], store: ArtifactStore
) -> None:
    environment |= {"RLHF_REDIS_URL": own_redis.url, "RLHF_LEASE_S": "15", "RLHF_HEARTBEAT_S": "3"}
    settings = ApiSettings(redis_url=own_redis.url, store=store.root, reconcile_s=0.3)
    worker = start("learner").ready()
    with TestClient(create_app(settings)) as api:
        body = {"kind": "ppo", "prompts": ["count"], "reward_model": "rm@1", "steps": 40}
        job = api.post("/jobs", json=body).json()["id"]
        wait_for(lambda: api.get(f"/jobs/{job}").json()["step"] >= 3)
        own_redis.stop()
        assert api.get(f"/jobs/{job}").status_code == 503
        own_redis.start()
        wait_for(lambda: api.get(f"/jobs/{job}").json()["state"] == "succeeded")
        assert api.get(f"/jobs/{job}").json()["attempts"] == 1, "a short outage costs nothing"
        assert [row["step"] for row in read_series(store.job_folder(job))] == list(range(1, 41))
        second = api.post("/jobs", json={**body, "steps": 1}).json()["id"]
        wait_for(lambda: api.get(f"/jobs/{second}").json()["state"] == "succeeded")
    assert worker.stop() == 0


def test_a_message_of_a_worker_waits_for_redis(own_redis: RedisServer, store: ArtifactStore) -> None:
    settings = ApiSettings(redis_url=own_redis.url, store=store.root)
    worker, impatient = create_celery(settings, retries=WORKER_RETRIES), create_celery(settings, retries=0)
    own_redis.stop()
    with pytest.raises(REDIS_OUTAGES):
        send_learn(impatient, "in vain")
    back = threading.Timer(2.0, own_redis.start)
    back.start()
    send_learn(worker, "in time")
    back.join()
    with redis.Redis.from_url(own_redis.url) as client:
        assert waiting(client, LEARNER_QUEUE) == {"in time"}
    # Now with a connection that breaks: whether the round trip arrived is unknown, and each message is sent again.
    own_redis.stop()
    back = threading.Timer(2.0, own_redis.start)
    back.start()
    send_rollouts(worker, {f"job:0:{shard}": {"shard": shard} for shard in range(3)})
    back.join()
    with redis.Redis.from_url(own_redis.url) as client:
        assert waiting(client, ROLLOUT_QUEUE) == {"job:0:0", "job:0:1", "job:0:2"}
    worker.close()
    impatient.close()


@pytest.mark.parametrize("queue", ["learner", "rollouts"])
def test_a_worker_waits_for_redis_and_can_be_stopped_meanwhile(
    start: Start, environment: dict[str, str], queue: str
) -> None:
    environment |= {"RLHF_POLICY_URL": "http://127.0.0.1:1", "RLHF_REWARD_URL": "http://127.0.0.1:1"}
    worker = start(queue, RLHF_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    wait_for(lambda: "Cannot connect" in worker.log.read_text())
    assert worker.process.poll() is None
    assert worker.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_api_ends_its_streams_and_exits_with_zero(api_process: ApiProcess, number: int) -> None:
    url = api_process.url
    body = {"kind": "ppo", "prompts": ["count"], "reward_model": "rm@1"}
    job = httpx.post(f"{url}/jobs", json=body).json()["id"]
    headers = {"Accept": "text/event-stream"}
    seen: list[str] = []
    first = threading.Event()

    def follow() -> None:
        with httpx.stream("GET", f"{url}/jobs/{job}/events", headers=headers, timeout=60) as response:
            for line in response.iter_lines():
                seen.append(line)
                first.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert first.wait(30)
    assert api_process.stop(number) == 0
    thread.join(10)
    assert "event: state" in seen
    lines = [json.loads(line) for line in api_process.log.read_text().splitlines()]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []


def test_events_are_followed_live(api_process: ApiProcess, start: Start) -> None:
    url = api_process.url
    body = {"kind": "ppo", "prompts": ["count"], "reward_model": "rm@1", "steps": 3}
    job = httpx.post(f"{url}/jobs", json=body).json()["id"]
    start("learner").ready()
    with httpx.stream(
        "GET", f"{url}/jobs/{job}/events", headers={"Accept": "text/event-stream"}, timeout=60
    ) as response:
        data = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert [event["name"] for event in data] == ["queued", "running", *["progress"] * 3, "accepted", "succeeded"]
    assert data[3]["data"] == {"step": 2, "total": 3, "metrics": {"step_squared": 4.0, "odd": None}}
    metrics = httpx.get(f"{url}/metrics").text
    assert 'rlhf_queue_length{queue="rollouts"} 0.0' in metrics
    assert 'rlhf_active_jobs{queue="learner",state="running"}' in metrics


def test_the_api_says_when_its_port_is_taken(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "services.trainer.api"],
            cwd=ROOT,
            env=os.environ | environment | {"RLHF_PORT": str(taken.getsockname()[1])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert "address already in use" in done.stderr
