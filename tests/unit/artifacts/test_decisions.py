"""Decisions on versions, and what `job@latest` is."""

from pathlib import Path

import pytest

from rlhf.artifacts.decisions import Decision, decide, exact_ref, read_decisions
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, NotFound


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store with ppo@1, @2 and @10."""
    store = ArtifactStore(tmp_path)
    for version in (1, 2, 10):
        store.publish("adapters", "ppo", version, lambda folder: (folder / "adapter_config.json").write_text("{}"))
    return store


def accept(store: ArtifactStore, version: int) -> None:
    decide(store, "ppo", Decision(version=version, state="accepted", evaluation="eval-1"))


def test_latest_is_the_highest_accepted_version_that_is_there(store: ArtifactStore) -> None:
    for version in (10, 2, 11):
        accept(store, version)
    assert exact_ref(store, "ppo@latest") == "ppo@10", "11 was never published, and 10 comes after 2"
    assert exact_ref(store, "ppo@1") == "ppo@1"
    assert store.versions("adapters", "ppo") == [1, 2, 10], "decisions are no version"


def test_a_rejection_leaves_latest_what_it_was(store: ArtifactStore) -> None:
    accept(store, 1)
    decide(store, "ppo", Decision(version=2, state="rejected", evaluation="eval-2", reasons=["a is 2 (gate <= 1)"]))
    assert exact_ref(store, "ppo@latest") == "ppo@1"


def test_the_newest_decision_on_a_version_counts(store: ArtifactStore) -> None:
    accept(store, 2)
    accept(store, 2)
    decide(store, "ppo", Decision(version=2, state="rejected", evaluation="eval-2", reasons=["worse"]))
    assert [(each.version, each.state) for each in read_decisions(store, "ppo")] == [(2, "rejected")]
    with pytest.raises(NotFound, match=r"ppo@2 was rejected by evaluation eval-2: worse"):
        exact_ref(store, "ppo@latest")


def test_without_an_accepted_version_the_reason_is_told(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="no version of nobody has passed its gates: nothing is named nobody"):
        exact_ref(store, "nobody@latest")
    with pytest.raises(NotFound, match=r"nothing was decided.*the newest is ppo@10"):
        exact_ref(store, "ppo@latest")
    decide(store, "ppo", Decision(version=10, state="pending", evaluation="eval-ppo"))
    with pytest.raises(NotFound, match="ppo@10 waits for evaluation eval-ppo"):
        exact_ref(store, "ppo@latest")


def test_a_decision_that_cannot_be_read_is_named(store: ArtifactStore) -> None:
    accept(store, 2)
    (store.root / "adapters/ppo/decisions/2.json").write_text("{")
    with pytest.raises(Conflict, match=r"decisions/2\.json cannot be read"):
        exact_ref(store, "ppo@latest")
