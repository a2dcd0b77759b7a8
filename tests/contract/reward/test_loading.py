"""`GET /models` and `POST /models/{name}/load`: which model is scored when none is named, and what is refused."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load, save_file

from rlhf.artifacts.folders import sha256, write_manifest
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import ErrorBody
from rlhf.lm.ensemble_bundle import BundleCandidate
from services.reward.app import create_app
from services.reward.settings import RewardSettings
from tests.contract.reward.conftest import KEY
from tests.waiting import wait_ready

BODY = {"samples": [{"prompt": "Why is the sky blue?", "response": "Air scatters blue light."}]}
WEIGHTS = "ensemble.safetensors"


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A server of its own store, since these tests damage it and change the default."""
    for ref in ("rm-a/1", "rm-a/2", "rm-short/1"):
        shutil.copytree(folder / "store/reward_models" / ref, tmp_path / "store/reward_models" / ref)
    settings = RewardSettings(
        model=str(folder / "tiny"), store=tmp_path / "store", api_key="secret", threads=1, reward_model="rm-a@1"
    )
    with TestClient(create_app(settings), headers=KEY) as client:
        wait_ready(client)
        yield client


@pytest.fixture
def bundle(server: TestClient, tmp_path: Path) -> Path:
    """The files of a sound bundle beside those that are served, to be damaged."""
    target = tmp_path / "store/reward_models/rm-new/1"
    shutil.copytree(tmp_path / "store/reward_models/rm-a/2", target)
    return target


def scored_by(client: TestClient, path: str = "/reward", body: dict[str, Any] = BODY) -> str:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["model"]


def refused(client: TestClient, name: str, status: int, kind: str) -> str:
    answer = client.post(f"/models/{name}/load")
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind), answer.text
    return ErrorBody.model_validate(answer.json()).error


def test_a_loaded_model_is_the_default_of_every_dialect(server: TestClient) -> None:
    pair = {"text_1": "Hi", "text_2": "Hello."}
    assert scored_by(server) == scored_by(server, "/score", pair) == "rm-a@1"
    assert server.post("/models/rm-a@2/load").json() == {"default": "rm-a@2", "replaced": "rm-a@1"}
    assert scored_by(server) == scored_by(server, "/score", pair) == "rm-a@2"
    assert scored_by(server, body={**BODY, "model": "rm-a@1"}) == "rm-a@1"
    # Loading it again reads it again and changes nothing.
    assert server.post("/models/rm-a@2/load").json() == {"default": "rm-a@2", "replaced": "rm-a@2"}
    assert scored_by(server) == "rm-a@2"


def test_requests_are_scored_while_a_model_is_read(server: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    library = server.app.state.runtime.worker().library  # type: ignore[attr-defined]
    read, reading, go_on = library.read, threading.Event(), threading.Event()

    def read_slowly(ref: str) -> BundleCandidate:
        reading.set()
        assert go_on.wait(30)
        return read(ref)

    assert scored_by(server) == "rm-a@1"
    monkeypatch.setattr(library, "read", read_slowly)
    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(server.post, f"/models/{name}/load") for name in ("rm-a@2", "rm-short@1")]
        try:
            assert reading.wait(30)
            assert scored_by(server) == "rm-a@1"
        finally:
            go_on.set()
        answers = [load.result(30).json() for load in loads]
    # One after the other, in whichever order they came.
    first, second = answers if answers[0]["replaced"] == "rm-a@1" else answers[::-1]
    assert (first["replaced"], second["replaced"]) == ("rm-a@1", first["default"])
    assert scored_by(server) == second["default"]


def test_models_are_told(server: TestClient) -> None:
    assert server.get("/models").json() == {
        "backbone": "tiny",
        "loaded": [],
        "default": "rm-a@1",
        "available": ["rm-a@1", "rm-a@2", "rm-short@1"],
    }
    server.post("/models/rm-a@2/load")
    server.post("/models/rm-short@1/load")
    told = server.get("/models").json()
    assert (told["loaded"], told["default"]) == (["rm-a@2", "rm-short@1"], "rm-short@1")


def test_a_server_without_a_default_gets_one(folder: Path) -> None:
    with TestClient(
        create_app(RewardSettings(model=str(folder / "tiny"), store=folder / "store", threads=1))
    ) as client:
        wait_ready(client)
        assert "/models/job@version/load" in client.post("/reward", json=BODY).json()["error"]
        assert client.post("/models/rm-a@1/load").json() == {"default": "rm-a@1", "replaced": None}
        assert scored_by(client) == "rm-a@1"


def test_a_key_is_needed(server: TestClient) -> None:
    for method, path in (("POST", "/models/rm-a@2/load"), ("GET", "/models")):
        answer = server.request(method, path, headers={"Authorization": "Bearer wrong"})
        assert (answer.status_code, answer.json()["error_type"]) == (401, "unauthorized")
    assert scored_by(server) == "rm-a@1"


def test_what_does_not_exist_is_not_found(server: TestClient) -> None:
    assert "its newest version is rm-a@2" in refused(server, "rm-a@9", 404, "not_found")
    assert "nothing is named rm-z" in refused(server, "rm-z@1", 404, "not_found")
    assert scored_by(server) == "rm-a@1"


@pytest.mark.parametrize(
    "name", ["rm-a", "rm-a@", "rm-a@x", "RM@1", "..@1", "rm-a@1%00", "%2e%2e@1", "rm-a@1%0a", "ü@1"]
)
def test_a_name_of_another_grammar_is_refused(server: TestClient, name: str) -> None:
    assert "name: String should match pattern" in refused(server, name, 422, "validation")
    assert scored_by(server) == "rm-a@1"


@pytest.mark.parametrize("name", ["../rm-a@1", "%2e%2e%2frm-a@1", "%2fetc%2fpasswd", "x%2f..%2frm-a@2", ""])
def test_a_path_is_no_route(server: TestClient, name: str) -> None:
    refused(server, name, 404, "not_found")
    assert scored_by(server) == "rm-a@1"


def flip(bundle: Path) -> None:
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (bundle / WEIGHTS).write_bytes(data)


def truncate(bundle: Path) -> None:
    (bundle / WEIGHTS).write_bytes((bundle / WEIGHTS).read_bytes()[:-100])


def pickle_beside(suffix: str) -> Callable[[Path], None]:
    """The same weights as torch saves them, in place of safetensors, and listed as they should be."""

    def damage(bundle: Path) -> None:
        torch.save(load((bundle / WEIGHTS).read_bytes()), bundle / f"ensemble{suffix}")
        (bundle / WEIGHTS).unlink()
        republish(bundle)

    return damage


def pickle_inside(bundle: Path) -> None:
    torch.save(load((bundle / WEIGHTS).read_bytes()), bundle / WEIGHTS)
    republish(bundle)


def spoil(value: float) -> Callable[[Path], None]:
    def damage(bundle: Path) -> None:
        tensors = load((bundle / WEIGHTS).read_bytes())
        tensors["heads"][0, 0] = value
        save_file(tensors, bundle / WEIGHTS)
        republish(bundle)

    return damage


def resize(bundle: Path) -> None:
    tensors = load((bundle / WEIGHTS).read_bytes())
    save_file(tensors | {"bias": torch.zeros(9)}, bundle / WEIGHTS)
    republish(bundle)


def republish(bundle: Path) -> None:
    """Sums that fit, so that only what is inside is wrong."""
    (bundle / "manifest.json").unlink()
    write_manifest(bundle)


def move_out(name: str) -> Callable[[Path], None]:
    """The weights outside the store, listed with their true sum. Args: name, as the manifest has it."""

    def damage(bundle: Path) -> None:
        outside = bundle.parents[3] / "outside"
        (bundle / WEIGHTS).rename(outside)
        manifest = json.loads((bundle / "manifest.json").read_text())
        del manifest["files"][WEIGHTS]
        entry = {"sha256": sha256(outside), "bytes": outside.stat().st_size}
        manifest["files"][name.format(outside=outside)] = entry
        (bundle / "manifest.json").write_text(json.dumps(manifest))

    return damage


def link_out(bundle: Path) -> None:
    outside = bundle.parents[3] / "outside"
    (bundle / WEIGHTS).rename(outside)
    (bundle / WEIGHTS).symlink_to(outside)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip, "ensemble.safetensors of rm-new@1 is corrupt"),
        (truncate, "ensemble.safetensors of rm-new@1 is corrupt"),
        (lambda b: (truncate(b), republish(b)), "ensemble.safetensors is no safetensors file"),
        (lambda b: (b / WEIGHTS).unlink(), "ensemble.safetensors of rm-new@1 is missing"),
        (pickle_beside(".bin"), "has no ensemble.safetensors, only config.json, ensemble.bin"),
        (pickle_beside(".pt"), "has no ensemble.safetensors, only config.json, ensemble.pt"),
        (pickle_inside, "ensemble.safetensors is no safetensors file"),
        (move_out("../../../../outside"), "../../../../outside of rm-new@1 is missing, or no path of a file in it"),
        (move_out("{outside}"), "/outside of rm-new@1 is missing, or no path of a file in it"),
        (link_out, "ensemble.safetensors of rm-new@1 is a symbolic link"),
        (spoil(float("nan")), "ensemble.safetensors of rm-new@1 holds NaN or infinite values in heads"),
        (spoil(float("inf")), "ensemble.safetensors of rm-new@1 holds NaN or infinite values in heads"),
        (spoil(1e4), "scores its probe differently"),
        (resize, "does not match its config.json: bias is float32 (9,), float32 (1,) is needed"),
        (lambda b: (b / "config.json").write_text("{"), "config.json of rm-new@1 is corrupt"),
        (lambda b: (b / "manifest.json").write_text("[]"), "manifest.json is unreadable"),
    ],
)
def test_a_failed_load_says_why_and_leaves_the_old_one_serving(
    server: TestClient, bundle: Path, damage: Callable[[Path], Any], told: str
) -> None:
    before = server.post("/reward", json=BODY).json()["results"]
    damage(bundle)
    assert told in refused(server, "rm-new@1", 409, "conflict")
    after = server.post("/reward", json=BODY).json()
    assert (after["model"], after["results"]) == ("rm-a@1", before)
    assert server.get("/models").json()["default"] == "rm-a@1"
    assert server.get("/models").json()["loaded"] == ["rm-a@1"]


def test_a_default_damaged_on_disk_is_served_from_memory(server: TestClient, tmp_path: Path) -> None:
    before = server.post("/reward", json=BODY).json()["results"]
    flip(tmp_path / "store/reward_models/rm-a/1")
    assert "is corrupt" in refused(server, "rm-a@1", 409, "conflict")
    assert server.post("/reward", json=BODY).json()["results"] == before


def test_a_mended_bundle_is_loaded(server: TestClient, bundle: Path, tmp_path: Path) -> None:
    flip(bundle)
    refused(server, "rm-new@1", 409, "conflict")
    flip(bundle)
    assert server.post("/models/rm-new@1/load").status_code == 200
    assert scored_by(server) == "rm-new@1"
    assert ArtifactStore(tmp_path / "store").refs("reward_models") == server.get("/models").json()["available"]
