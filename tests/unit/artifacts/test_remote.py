"""A store with a remote copy, of which another store takes what it lacks; the copy in a folder, S3 itself elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.artifacts.decisions import Decision, decide, exact_ref, read_decisions
from rlhf.artifacts.folders import sha256
from rlhf.artifacts.remote import RemoteAway, RemoteCopy
from rlhf.artifacts.store import PULLED_KEPT, ArtifactStore, open_store
from rlhf.contracts.errors import Conflict, NotFound


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def trainer(tmp_path: Path, bucket: Path) -> ArtifactStore:
    return open_store(tmp_path / "trainer", f"file://{bucket}", patience_s=1)


@pytest.fixture
def server(tmp_path: Path, bucket: Path) -> ArtifactStore:
    return open_store(tmp_path / "server", f"file://{bucket}", patience_s=1)


def publish(store: ArtifactStore, version: int, *, name: str = "ppo-1", text: bytes = b"12345") -> None:
    def write(folder: Path) -> None:
        (folder / "weights").write_bytes(text)
        (folder / "more").mkdir()
        (folder / "more/config.json").write_bytes(b"{}")

    store.publish("adapters", name, version, write)


def test_a_server_takes_from_the_copy_what_it_lacks(
    trainer: ArtifactStore, server: ArtifactStore, bucket: Path
) -> None:
    publish(trainer, 1)
    publish(trainer, 10)
    folder = server.resolve("adapters", "ppo-1@10")
    assert folder.is_relative_to(server.root)
    assert (folder / "weights").read_bytes() == b"12345"
    assert (folder / "more/config.json").read_bytes() == b"{}"
    assert server.refs("adapters") == ["ppo-1@1", "ppo-1@10"]
    with pytest.raises(NotFound, match=r"adapters ppo-1@2 does not exist; its newest version is ppo-1@10"):
        server.resolve("adapters", "ppo-1@2")
    with pytest.raises(NotFound, match="nothing is named ppo-2"):
        server.resolve("adapters", "ppo-2@1")
    # What it has it needs no copy for.
    bucket.rename(bucket.with_name("gone"))
    assert server.resolve("adapters", "ppo-1@10") == folder


def test_a_version_is_there_when_its_manifest_is(trainer: ArtifactStore, server: ArtifactStore, bucket: Path) -> None:
    publish(trainer, 1)
    there = bucket / "adapters/ppo-1/1"
    manifest = (there / "manifest.json").read_bytes()
    (there / "manifest.json").unlink()
    with pytest.raises(NotFound):
        server.resolve("adapters", "ppo-1@1")
    # A publisher that died before the manifest publishes again, and what it has here already goes there.
    (there / "weights").unlink()
    publish(trainer, 1, text=b"another")
    assert (there / "manifest.json").read_bytes() == manifest
    assert (server.resolve("adapters", "ppo-1@1") / "weights").read_bytes() == b"12345"
    # And a version that is there whole stays as it is.
    (there / "weights").write_bytes(b"untouched")
    publish(trainer, 1)
    assert (there / "weights").read_bytes() == b"untouched"


def alter(there: Path) -> None:
    (there / "weights").write_bytes(b"54321")


def cut(there: Path) -> None:
    (there / "weights").write_bytes(b"1")


def lose(there: Path) -> None:
    (there / "weights").unlink()


def break_manifest(there: Path) -> None:
    (there / "manifest.json").write_text("[]")


def lead_out(name: str) -> Callable[[Path], None]:
    def change(there: Path) -> None:
        files = {name: {"sha256": sha256(there / "weights"), "bytes": 5}}
        (there / "manifest.json").write_text(json.dumps({"files": files}))

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (alter, "weights of adapters/ppo-1/1 in file:.* is not what its manifest says"),
        (cut, "weights of adapters/ppo-1/1 in file:.* is not what its manifest says"),
        (lose, "weights of adapters/ppo-1/1 is missing"),
        (break_manifest, "manifest.json of adapters/ppo-1/1 in file:.* is none"),
        (lead_out("../../../../weights"), r"names '\.\./\.\./\.\./\.\./weights', which is no file of a version"),
        (lead_out("/tmp/weights"), "names '/tmp/weights', which is no file of a version"),
        (lead_out("manifest.json"), "names 'manifest.json', which is no file of a version"),
    ],
)
def test_what_is_not_what_was_published_is_refused_and_leaves_nothing(
    trainer: ArtifactStore, server: ArtifactStore, bucket: Path, change: Callable[[Path], None], why: str
) -> None:
    publish(trainer, 1)
    change(bucket / "adapters/ppo-1/1")
    with pytest.raises(Conflict, match=why):
        server.resolve("adapters", "ppo-1@1")
    assert [path for path in server.root.rglob("*") if path.is_file()] == []


def test_of_pulled_versions_the_newest_stay_and_the_others_can_be_had_again(
    trainer: ArtifactStore, server: ArtifactStore
) -> None:
    for version in range(1, PULLED_KEPT + 3):
        publish(trainer, version)
        server.resolve("adapters", f"ppo-1@{version}")
    pulled = server.root / "pulled/adapters/ppo-1"
    assert sorted(int(path.name) for path in pulled.iterdir()) == list(range(3, PULLED_KEPT + 3))
    assert server.resolve("adapters", "ppo-1@1").is_dir()
    assert len(trainer.versions("adapters", "ppo-1")) == PULLED_KEPT + 2, "of what it published itself nothing goes"


def test_old_versions_go_from_the_copy_too(trainer: ArtifactStore, server: ArtifactStore) -> None:
    for version in (1, 2, 3, 4):
        publish(trainer, version)
    trainer.keep_from("adapters", "ppo-1", 4, also=2)
    assert trainer.versions("adapters", "ppo-1") == [2, 4]
    assert server.versions("adapters", "ppo-1") == [2, 4]


def test_a_server_knows_what_was_decided(
    trainer: ArtifactStore, server: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(trainer, 1)
    publish(trainer, 2)
    with pytest.raises(NotFound, match="nothing was decided"):
        exact_ref(server, "ppo-1@latest")
    # What it has just read it takes for true.
    decide(trainer, "ppo-1", Decision(version=1, state="accepted", evaluation=None))
    with pytest.raises(NotFound, match="nothing was decided"):
        exact_ref(server, "ppo-1@latest")
    monkeypatch.setattr("rlhf.artifacts.remote.FRESH_S", 0.0)
    assert exact_ref(server, "ppo-1@latest") == "ppo-1@1"
    decide(trainer, "ppo-1", Decision(version=2, state="rejected", evaluation="eval-1", reasons=["rep4"]))
    assert [each.state for each in read_decisions(server, "ppo-1")] == ["accepted", "rejected"]
    assert exact_ref(server, "ppo-1@latest") == exact_ref(trainer, "ppo-1@latest") == "ppo-1@1"


def test_what_was_pulled_is_latest_without_a_look_at_the_copy(
    trainer: ArtifactStore, server: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(trainer, 1)
    decide(trainer, "ppo-1", Decision(version=1, state="accepted", evaluation=None))
    server.resolve("adapters", exact_ref(server, "ppo-1@latest"))

    def refuse(_: RemoteCopy, key: str) -> list[str]:
        raise AssertionError(f"{key} is listed, which each request for job@latest would wait for")

    monkeypatch.setattr(RemoteCopy, "below", refuse)
    assert exact_ref(server, "ppo-1@latest") == "ppo-1@1"


def test_a_copy_that_cannot_be_written_is_told_and_what_is_here_stays(trainer: ArtifactStore, bucket: Path) -> None:
    publish(trainer, 1)
    bucket.rename(bucket.with_name("gone"))
    bucket.write_text("no folder")
    with pytest.raises(RemoteAway, match=r"cannot be reached for adapters/ppo-1/2 \(.*\); look at its address"):
        publish(trainer, 2)
    assert trainer.resolve("adapters", "ppo-1@2").is_dir()
    bucket.unlink()
    bucket.with_name("gone").rename(bucket)
    publish(trainer, 2)
    assert (bucket / "adapters/ppo-1/2/manifest.json").is_file()


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/path", "s3://", "file:///nowhere/at/all"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=f"RLHF_STORE_REMOTE={url} is no object store"):
        RemoteCopy(url, patience_s=1)
