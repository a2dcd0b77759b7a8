"""What the store takes for an artifact, and what it refuses with the name of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.artifacts.folders import sha256
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, InvalidInput, NotFound


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(tmp_path / "store")
    publish(store, "rm", 1)
    return store


def publish(store: ArtifactStore, name: str, version: int) -> None:
    store.publish("reward_models", name, version, lambda folder: (folder / "weights").write_bytes(b"12345"))


def folder_of(store: ArtifactStore) -> Path:
    return store.root / "reward_models/rm/1"


def list_too(folder: Path, name: str, path: Path) -> None:
    """Puts a file into the manifest, with its true sum."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def outside(folder: Path) -> Path:
    path = folder.parents[3] / "outside"
    path.write_bytes(b"12345")
    return path


def link(folder: Path) -> None:
    """The same bytes by a symbolic link, so that only the link is wrong."""
    (folder / "weights").unlink()
    (folder / "weights").symlink_to(outside(folder))


def link_folder(folder: Path) -> None:
    outside(folder)
    (folder / "more").symlink_to(folder.parents[3], target_is_directory=True)
    list_too(folder, "more/outside", folder / "more/outside")


def test_what_was_published_is_found_whole(store: ArtifactStore) -> None:
    assert store.resolve("reward_models", "rm@1") == folder_of(store)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "weights").write_bytes(b"12346"), "weights of rm@1 is corrupt"),
        (lambda f: (f / "weights").write_bytes(b"1234"), "weights of rm@1 is corrupt"),
        (lambda f: (f / "weights").unlink(), "weights of rm@1 is missing"),
        (lambda f: (f / "more").write_bytes(b""), "more of rm@1 is not in its manifest"),
        (lambda f: list_too(f, "../../../../outside", outside(f)), r"\.\./outside of rm@1 is missing, or no path"),
        (lambda f: list_too(f, str(outside(f)), outside(f)), "outside of rm@1 is missing, or no path"),
        (lambda f: list_too(f, "./weights", f / "weights"), r"\./weights of rm@1 is missing, or no path"),
        (link, "weights of rm@1 is a symbolic link"),
        (link_folder, "more of rm@1 is a symbolic link"),
        (lambda f: (f / "loop").symlink_to("loop"), "loop of rm@1 is a symbolic link"),
        (lambda f: ((f / "weights").unlink(), os.mkfifo(f / "weights")), "weights of rm@1 is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is unreadable"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff"), "manifest.json is unreadable"),
        (lambda f: (f / "manifest.json").write_text("[" * 100_000), "manifest.json is unreadable"),
        (lambda f: (f / "manifest.json").write_text('{"files": []}'), "manifest.json is unreadable"),
        (lambda f: (f / "manifest.json").write_text('{"files": {"weights": {}}}'), "manifest.json is unreadable"),
    ],
)
def test_what_is_not_as_published_is_refused_by_name(
    store: ArtifactStore, damage: Callable[[Path], Any], told: str
) -> None:
    damage(folder_of(store))
    with pytest.raises(Conflict, match=told):
        store.resolve("reward_models", "rm@1")


def test_a_store_that_cannot_be_read_is_a_conflict(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # By a fault of reading: these tests may run as root, whom no permission stops.
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("rlhf.artifacts.folders.sha256", refuse)
    with pytest.raises(Conflict, match=r"rm@1 cannot be read .*Permission denied"):
        store.resolve("reward_models", "rm@1")


def test_names_and_versions_of_another_grammar_are_no_artifacts(store: ArtifactStore) -> None:
    publish(store, "rm", 10)
    publish(store, "rm", 2)
    publish(store, "a", 1)
    for odd in ("rm/1.bak", "rm/01", "rm/²", "rm/.3.tmp", "rm.bak/1", "RM/1", "empty"):
        (store.root / "reward_models" / odd).mkdir(parents=True)
    (store.root / "reward_models/rm/7").write_text("a file")
    assert store.refs("reward_models") == ["a@1", "rm@1", "rm@2", "rm@10"]
    assert store.refs("adapters") == []


@pytest.mark.parametrize("ref", ["../rm@1", "rm", "rm@", "rm@x", "rm@-1", "/rm@1", "rm/1@1", ".@1", "@1", "rm@²"])
def test_references_cannot_leave_the_store(store: ArtifactStore, ref: str) -> None:
    with pytest.raises(InvalidInput):
        store.resolve("reward_models", ref)


def test_an_unknown_version_names_the_newest(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="its newest version is rm@1"):
        store.resolve("reward_models", "rm@9")


def test_old_versions_go_and_what_a_crash_left(store: ArtifactStore) -> None:
    for version in (2, 10):
        publish(store, "rm", version)
    publish(store, "other", 1)
    (store.root / "reward_models/rm/.11.half").mkdir()
    store.keep_from("reward_models", "rm", 2)
    assert store.refs("reward_models") == ["other@1", "rm@2", "rm@10"]
    assert sorted(path.name for path in (store.root / "reward_models/rm").iterdir()) == ["10", "2"]
    with pytest.raises(NotFound, match="newest version is rm@10"):
        store.resolve("reward_models", "rm@1")


def test_a_version_that_is_to_stay_stays(store: ArtifactStore) -> None:
    for version in (1, 2, 3):  # 1 was there, from the fixture
        publish(store, "rm", version)
    store.keep_from("reward_models", "rm", 3, also=1)
    assert store.versions("reward_models", "rm") == [1, 3]
