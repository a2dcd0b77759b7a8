"""The real process: `python -m services.reward`, a port, a key, a log, a signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.clients.reward import RewardClient
from rlhf.contracts.errors import NotFound, Unauthorized
from rlhf.contracts.reward import RewardRequest, RewardSample, SampleScore
from rlhf.lm.loading import load_language_model
from tests.contract.reward.conftest import publish
from tests.tiny_models import save_tiny_llama

KEY = "the-key-of-this-test"


def test_scores_and_stops_cleanly(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "tiny")
    publish(ArtifactStore(tmp_path / "store"), load_language_model(str(model)), "rm-a", 1, members=2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RLHF_")},
        "RLHF_MODEL": str(model),
        "RLHF_STORE": str(tmp_path / "store"),
        "RLHF_PORT": str(port),
        "RLHF_API_KEY": KEY,
        "RLHF_THREADS": "1",
    }
    log = tmp_path / "reward.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as file, RewardClient(url, KEY) as client:
        process = subprocess.Popen([sys.executable, "-m", "services.reward"], env=environment, stderr=file)
        try:
            wait_until_ready(process, client, log)
            request = RewardRequest(samples=[RewardSample(prompt="hi", response="there")], model="rm-a@1")
            (result,) = client.score(request).results
            assert isinstance(result, SampleScore)
            with pytest.raises(NotFound):
                client.score(request.model_copy(update={"model": "rm-b@1"}))
            with RewardClient(url, "wrong") as stranger, pytest.raises(Unauthorized):
                stranger.score(request)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=15) == 0
        finally:
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines
    assert [line for line in lines if line["level"] in ("warning", "error")] == []


def wait_until_ready(process: subprocess.Popen[bytes], client: RewardClient, log: Path) -> None:
    deadline = time.monotonic() + 120
    while not client.ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
