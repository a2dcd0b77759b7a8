"""The job API in this process, on a real Redis and a real store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from services.trainer.api.app import create_app
from services.trainer.settings import ApiSettings
from tests.integration.conftest import redis_client, redis_server, redis_url

__all__ = ["redis_client", "redis_server", "redis_url"]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store with one reward model, rm@1."""
    store = ArtifactStore(tmp_path / "store")
    store.publish("reward_models", "rm", 1, lambda folder: (folder / "config.json").write_text("{}"))
    return store


@pytest.fixture
def settings(redis_url: str, store: ArtifactStore) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, store=store.root, reconcile_s=60, max_body_bytes=64 * 1024)


@pytest.fixture
def client(settings: ApiSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client
