"""A policy that shares no folder with who publishes: adapters come from S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.decisions import Decision, decide
from rlhf.artifacts.remote import RemoteAway
from rlhf.artifacts.store import ArtifactStore, open_store
from services.policy.app import create_app
from services.policy.settings import PolicySettings
from tests.s3 import S3, serving_s3
from tests.unit.policy.publishing import publish
from tests.waiting import wait_ready

GREEDY = {"max_new_tokens": 8, "temperature": 0.0}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with serving_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        yield s3


@pytest.fixture
def trainer(s3: S3, tmp_path: Path) -> ArtifactStore:
    return open_store(tmp_path / "trainer", s3.url, patience_s=5)


@pytest.fixture
def policy(s3: S3, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("services.policy.app.SERVING_PATIENCE_S", 0.5)
    monkeypatch.setattr("rlhf.artifacts.remote.FRESH_S", 0.0)
    settings = PolicySettings(model=str(model_folder), store=tmp_path / "own", store_remote=s3.url, threads=1)
    with TestClient(create_app(settings)) as client:
        wait_ready(client)
        yield client


def said(policy: TestClient, adapter: str | None) -> tuple[str, str | None]:
    answer = policy.post("/generate", json={"prompts": ["hi"], "sampling": GREEDY, "adapter": adapter})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]["text"], answer.json()["adapter"]


def refusal(policy: TestClient, adapter: str) -> tuple[int, str, str]:
    answer = policy.post("/generate", json={"prompts": ["hi"], "sampling": GREEDY, "adapter": adapter})
    return answer.status_code, answer.json()["error_type"], answer.json()["error"]


def test_adapters_come_from_s3_and_what_is_loaded_outlives_it(
    policy: TestClient, trainer: ArtifactStore, model_folder: Path, s3: S3
) -> None:
    status, kind, message = refusal(policy, "ppo-1@1")
    assert (status, kind) == (404, "not_found")
    assert "nothing is named ppo-1" in message
    publish(trainer, model_folder, "ppo-1", 1)
    publish(trainer, model_folder, "ppo-1", 2, seed=2)
    base, first, second = (said(policy, adapter)[0] for adapter in (None, "ppo-1@1", "ppo-1@2"))
    assert len({base, first, second}) == 3, "each changes what is said"
    decide(trainer, "ppo-1", Decision(version=1, state="accepted", evaluation=None))
    assert said(policy, "ppo-1@latest") == (first, "ppo-1@1")

    s3.server.stop()
    assert said(policy, "ppo-1@2")[0] == second
    for adapter in ("ppo-1@3", "ppo-1@latest"):
        status, kind, message = refusal(policy, adapter)
        assert (status, kind) == (503, "unavailable")
        assert f"{s3.url} cannot be reached" in message
        assert "\n" not in message


def test_a_large_file_goes_in_parts_and_comes_whole(trainer: ArtifactStore, s3: S3, tmp_path: Path) -> None:
    content = os.urandom(12 * 2**20 + 1)
    trainer.publish("reward_models", "rm-1", 1, lambda folder: (folder / "weights").write_bytes(content))
    server = open_store(tmp_path / "server", s3.url, patience_s=5)
    assert server.refs("reward_models") == ["rm-1@1"]
    assert (server.resolve("reward_models", "rm-1@1") / "weights").read_bytes() == content


def test_a_bucket_that_is_not_there_is_told(s3: S3, tmp_path: Path) -> None:
    store = open_store(tmp_path / "server", "s3://another-bucket/rlhf", patience_s=0.5)
    with pytest.raises(RemoteAway, match="cannot be reached for adapters/ppo-1/1"):
        store.publish("adapters", "ppo-1", 1, lambda folder: (folder / "a.json").write_text("{}"))
