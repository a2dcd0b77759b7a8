"""The real process: `python -m services.reward`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.clients.reward import RewardClient
from rlhf.lm.loading import LanguageModel, load_language_model
from rlhf.local.redis import free_port
from tests.tiny_models import save_tiny_llama

KEY = "the-key-of-this-test"


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path


Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def base(tmp_path: Path) -> LanguageModel:
    return load_language_model(str(save_tiny_llama(tmp_path / "tiny")))


@pytest.fixture
def serve(base: LanguageModel, store: ArtifactStore, tmp_path: Path) -> Serve:
    """Starts a server on the tiny model and the store, and gives it once it is ready. Args: settings."""

    @contextmanager
    def serve(**settings: str) -> Iterator[Server]:
        port = free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RLHF_")},
            "RLHF_MODEL": str(tmp_path / "tiny"),
            "RLHF_STORE": str(store.root),
            "RLHF_PORT": str(port),
            "RLHF_API_KEY": KEY,
            "RLHF_THREADS": "1",
            **settings,
        }
        log = tmp_path / "reward.log"
        with log.open("w") as file:
            process = subprocess.Popen([sys.executable, "-m", "services.reward"], env=environment, stderr=file)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, log)
            yield Server(url, process, log)
        finally:
            process.kill()
            process.wait()

    return serve


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    with RewardClient(url, KEY) as client:
        while not client.ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
