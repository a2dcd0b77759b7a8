"""The service in this process, over HTTP as clients see it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from services.policy.app import create_app
from services.policy.settings import PolicySettings
from tests import serving
from tests.tiny_models import save_tiny_gpt_neo, save_tiny_llama
from tests.waiting import wait_ready

KEY = "a-key"
Serve = Callable[..., "contextmanager[TestClient]"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("served") / "tiny-llama")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def client(model_folder: Path, store: ArtifactStore) -> Iterator[TestClient]:
    settings = PolicySettings(
        model=str(model_folder), store=store.root, api_key=KEY, threads=1, max_request_rows=50, max_body_bytes=100_000
    )
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {KEY}"}) as client:
        wait_ready(client)
        yield client


@pytest.fixture(scope="session")
def neo_client(tmp_path_factory: pytest.TempPathFactory, store: ArtifactStore) -> Iterator[TestClient]:
    """A model without a chat template, served without a key on loopback."""
    folder = save_tiny_gpt_neo(tmp_path_factory.mktemp("served") / "tiny-neo")
    with TestClient(create_app(PolicySettings(model=str(folder), store=store.root, threads=1))) as client:
        wait_ready(client)
        yield client


@contextmanager
def served(model_folder: Path, store: ArtifactStore) -> Iterator[tuple[str, FastAPI]]:
    """The service, served by uvicorn as in production: its URL, and the application behind it."""
    app = create_app(PolicySettings(model=str(model_folder), store=store.root, api_key=KEY, threads=1))
    with serving.served(app) as url:
        yield url, app


@pytest.fixture(scope="session")
def url(model_folder: Path, store: ArtifactStore) -> Iterator[str]:
    with served(model_folder, store) as (url, _):
        yield url
