"""The reward service in this process, with a tiny backbone and ensembles that were never trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.ensemble import EnsembleShape, RewardEnsemble
from rlhf.lm.ensemble_bundle import save_bundle
from rlhf.lm.loading import LanguageModel, load_language_model
from services.reward.app import create_app
from services.reward.settings import RewardSettings
from tests.tiny_models import save_tiny_llama
from tests.waiting import wait_ready

KEY = {"Authorization": "Bearer secret"}


def publish(
    store: ArtifactStore, base: LanguageModel, name: str, version: int, members: int, max_length: int = 128
) -> None:
    shape = EnsembleShape(
        backbone=base.name, width=32, trunk_layers=3, member_layers=1, members=members, lora_r=2, max_length=max_length
    )
    ensemble = RewardEnsemble(base, shape, seed=version)
    store.publish("reward_models", name, version, lambda folder: save_bundle(folder, ensemble, base, temperature=1.0))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    base = load_language_model(str(save_tiny_llama(folder / "tiny")))
    store = ArtifactStore(folder / "store")
    publish(store, base, "rm-a", 1, members=3)
    publish(store, base, "rm-a", 2, members=1)
    publish(store, base, "rm-short", 1, members=2, max_length=40)
    for name in ("rm-torn", "rm-pickled"):
        publish(store, base, name, 1, members=2)
    (folder / "store/reward_models/rm-torn/1/ensemble.safetensors").write_bytes(b"torn")
    (folder / "store/reward_models/rm-pickled/1/evil.pkl").write_bytes(b"\x80\x04.")
    return folder


@pytest.fixture(scope="session")
def client(folder: Path) -> Iterator[TestClient]:
    settings = RewardSettings(
        model=str(folder / "tiny"), store=folder / "store", api_key="secret", threads=1, max_request_samples=8
    )
    with TestClient(create_app(settings), headers=KEY) as client:
        wait_ready(client)
        yield client
