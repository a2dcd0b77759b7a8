"""The real process: `python -m services.policy`, a port, a key, a log, a signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.clients.http import NO_RETRIES
from rlhf.clients.policy import PolicyClient
from rlhf.contracts.errors import NotFound, Unauthorized, Unavailable
from rlhf.contracts.policy import GenerateRequest, SamplingParams
from tests.tiny_models import save_tiny_llama
from tests.unit.policy.publishing import publish
from tests.waiting import wait_ready

KEY = "the-key-of-this-test"
PATIENCE_S = 300
"""For machines that do much else; nothing here waits that long when it works."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(folder: Path, model: Path, **settings: str) -> Iterator[tuple[subprocess.Popen, str, Path]]:
    """The process, its URL and its log file."""
    port, log = free_port(), folder / "policy.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RLHF_")},
        "RLHF_MODEL": str(model),
        "RLHF_STORE": str(folder / "store"),
        "RLHF_PORT": str(port),
        "RLHF_API_KEY": KEY,
        "RLHF_THREADS": "1",
        **settings,
    }
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "services.policy"], env=environment, stderr=file)
    try:
        yield process, f"http://127.0.0.1:{port}", log
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


def wait_up(process: subprocess.Popen, url: str, log: Path) -> None:
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            try:
                client.get("/health")
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            wait_ready(client, PATIENCE_S)
            return


def lines_of(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def request(tokens: int, **sampling: object) -> GenerateRequest:
    settings = SamplingParams(max_new_tokens=tokens, min_new_tokens=tokens, seed=1, **sampling)
    return GenerateRequest(prompts=["hi"], sampling=settings)


def wait_for_a_batch(client: httpx.Client) -> None:
    """Returns once the engine computes."""
    while "tgi_batch_current_size 0.0" in client.get("/metrics").text:
        time.sleep(0.01)


def test_serves_and_stops_cleanly(tmp_path: Path, model: Path) -> None:
    publish(ArtifactStore(tmp_path / "store"), model, "job", 1)
    with running(tmp_path, model) as (process, url, log), PolicyClient(url, KEY) as client:
        wait_up(process, url, log)
        assert client.generate(request(5)).results[0].generated_tokens == 5
        adapted = client.generate(request(5).model_copy(update={"adapter": "job@1"}))
        assert adapted.policy_version == 1
        with pytest.raises(NotFound, match="nothing is named job2"):
            client.generate(request(5).model_copy(update={"adapter": "job2@1"}))
        with PolicyClient(url) as stranger, pytest.raises(Unauthorized, match="no key"):
            stranger.generate(request(5))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        records = lines_of(log)
        assert {record["level"] for record in records} == {"info"}, records
        assert not any(KEY in json.dumps(record) for record in records)
        with pytest.raises(Unavailable, match="cannot be reached"):
            PolicyClient(url, KEY).send("GET", "/info", retries=NO_RETRIES)


def test_running_requests_finish_while_new_ones_are_refused(tmp_path: Path, model: Path) -> None:
    settings = {"RLHF_MAX_BATCH_ROWS": "1", "RLHF_DRAIN_SECONDS": "300"}
    with running(tmp_path, model, **settings) as (process, url, log), PolicyClient(url, KEY) as client:
        wait_up(process, url, log)
        answers: list[object] = []
        threads = [
            threading.Thread(target=lambda: answers.append(len(client.generate(request(200, n=4)).results)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as probe:
            wait_for_a_batch(probe)
            process.send_signal(signal.SIGTERM)
            refused = probe.get("/ready")
            while refused.status_code == 200:
                refused = probe.get("/ready")
            assert refused.status_code == 503
            assert "draining" in refused.json()["error"]
            generate = probe.post("/generate", json={"prompts": ["hi"]}, headers={"Authorization": f"Bearer {KEY}"})
            assert generate.status_code == 503
        for thread in threads:
            thread.join(PATIENCE_S)
        assert answers == [4, 4]
        assert process.wait(PATIENCE_S) == 0
        assert {record["level"] for record in lines_of(log)} == {"info"}


def test_requests_that_cannot_finish_in_time_are_answered(tmp_path: Path, model: Path) -> None:
    settings = {"RLHF_DRAIN_SECONDS": "0", "RLHF_MAX_BATCH_ROWS": "1"}
    with running(tmp_path, model, **settings) as (process, url, log):
        wait_up(process, url, log)
        errors: list[str] = []

        def ask() -> None:
            with httpx.Client(base_url=url, timeout=PATIENCE_S, headers={"Authorization": f"Bearer {KEY}"}) as client:
                body = request(480, n=64).model_dump(mode="json", by_alias=True)
                errors.append(client.post("/generate", json=body).json()["error"])

        thread = threading.Thread(target=ask)
        thread.start()
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as probe:
            wait_for_a_batch(probe)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        thread.join(PATIENCE_S)
        assert "stopped before the response was complete" in errors[0]


def test_a_model_that_cannot_be_loaded_ends_the_process(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "nothing") as (process, _, log):
        assert process.wait(PATIENCE_S) == 1
        assert "could not be loaded" in log.read_text()


def test_wrong_settings_are_named(tmp_path: Path, model: Path) -> None:
    with running(tmp_path, model, RLHF_MAX_BATCH_ROWS="0") as (process, _, log):
        assert process.wait(PATIENCE_S) == 2
        assert log.read_text() == "policy: RLHF_MAX_BATCH_ROWS: Input should be greater than or equal to 1\n"


def test_an_open_door_is_refused(tmp_path: Path, model: Path) -> None:
    with running(tmp_path, model, RLHF_HOST="0.0.0.0", RLHF_API_KEY=KEY) as (process, url, log):
        wait_up(process, url, log)
    environment = {"RLHF_HOST": "0.0.0.0", "RLHF_MODEL": str(model), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-m", "services.policy"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no API key is set" in done.stderr
