"""Panels over HTTP: classifiers of two families beside a second reward service, asked in every dialect it speaks."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from pydantic import ValidationError

from rlhf.contracts.reward import RewardRequest
from rlhf.lm.classifiers import load_classifier
from services.reward.app import create_app
from services.reward.loading import load_scorer
from services.reward.settings import RewardSettings
from tests.tiny_models import save_tiny_bert_classifier, save_tiny_llama_classifier
from tests.waiting import wait_ready

SAMPLES = [
    {"prompt": "Why is the sky blue?", "response": "Air scatters blue light."},
    {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "response": "Hello."},
    {"prompt": "Name a fruit.", "response": "Pear"},
]
REFERENCE = [{"prompt": "Name a colour.", "response": text} for text in ("Blue.", "I will not.", "red red red")]
DIALECTS = ("native", "openrlhf", "vllm_classify", "vllm_score", "tei_predict")
PLAIN = {"mean": 0.0, "std": 1.0}


class Broken(BaseHTTPRequestHandler):
    """/held/... answers once it is let go, and with 500 as everything else."""

    let_go = threading.Event()
    held = threading.Event()

    def do_POST(self) -> None:
        if self.path.startswith("/held/"):
            self.held.set()
            assert self.let_go.wait(60)
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def far(folder: Path) -> Iterator[str]:
    """The second reward service, behind a real port and a key."""
    settings = RewardSettings(
        model=str(folder / "tiny"), store=folder / "store", threads=1, reward_model="rm-a@1", api_key="far-key"
    )
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url) as client:
        # Before tests make models of their own: transformers makes one at a time (rlhf.lm.loading.BUILDING).
        wait_ready(client)
    yield url
    server.should_exit = True
    thread.join(30)
    listener.close()


def panels(folder: Path, far: str, broken: str) -> dict[str, Any]:
    key = folder / "far.key"
    key.write_text("far-key\n")
    (folder / "reference.jsonl").write_text("\n".join(map(json.dumps, REFERENCE)))

    def remote(url: str, dialect: str = "native", **more: Any) -> dict[str, Any]:
        return {"kind": "remote", "url": url, "dialect": dialect, "api_key_file": str(key), **PLAIN, **more}

    def spoken(dialect: str) -> dict[str, Any]:
        # With the far server's template, texts say who spoke.
        text = dialect in ("openrlhf", "vllm_score", "tei_predict")
        return remote(far, dialect, batch=2, tokenizer=str(folder / "tiny") if text else None)

    llama = {"kind": "classifier", "model": str(folder / "llama"), "label": "LABEL_1"}
    bert = {"kind": "classifier", "model": str(folder / "bert")}
    native = {**remote(far), "mean": None, "std": None}
    unused = socket.create_server(("127.0.0.1", 0))
    gone = f"http://127.0.0.1:{unused.getsockname()[1]}"
    unused.close()
    return {
        "guards@1": {"members": [{**llama, **PLAIN}, {**bert, **PLAIN}, *map(spoken, DIALECTS)]},
        "guards@2": {"members": [llama, bert, native], "reference": str(folder / "reference.jsonl")},
        "local@1": {"members": [llama, bert], "reference": REFERENCE},
        "short@1": {"members": [remote(far, "openrlhf", model="rm-short@1")]},
        "wrong@1": {"members": [remote(far, model="rm-absent@1")]},
        "locked@1": {"members": [remote(far, api_key_file=None)]},
        "broken@1": {"members": [{**bert, **PLAIN}, remote(broken)]},
        "held@1": {"members": [remote(broken + "/held")]},
        "gone@1": {"members": [remote(gone)]},
        "slow@1": {"members": [remote(broken + "/held", timeout_s=0.2)]},
    }


@pytest.fixture(scope="module")
def near(folder: Path, far: str, broken: str) -> Iterator[TestClient]:
    save_tiny_llama_classifier(folder / "llama", seed=1, labels=3)
    save_tiny_bert_classifier(folder / "bert", seed=2)
    file = folder / "panels.json"
    file.write_text(json.dumps(panels(folder, far, broken)))
    settings = RewardSettings(
        model=str(folder / "tiny"), store=folder / "store", threads=1, reward_model="guards@1", reward_panels=file
    )
    with TestClient(create_app(settings)) as client:
        wait_ready(client)
        yield client


def ask(client: TestClient, samples: list[dict[str, Any]] = SAMPLES, **more: Any) -> list[dict[str, Any]]:
    answer = client.post("/reward", json={"samples": samples, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def raw(folder: Path, name: str, label: str | None, samples: list[dict[str, Any]]) -> list[float]:
    """What the classifier gives each sample alone; tests/unit/lm compares that with transformers."""
    one = load_classifier(str(folder / name), label=label)
    turns = RewardRequest.model_validate({"samples": samples}).samples
    return [one.score([one.encode(each.prompt, each.response)], token_budget=1)[0] for each in turns]


def test_every_member_has_its_own_score_in_order(near: TestClient, folder: Path) -> None:
    results, far_ones = ask(near), ask(near, model="rm-a@1")
    llama, bert = raw(folder, "llama", "LABEL_1", SAMPLES), raw(folder, "bert", None, SAMPLES)
    for index, result in enumerate(results):
        expected = [llama[index], bert[index], *[far_ones[index]["score"]] * len(DIALECTS)]
        assert result["members"] == pytest.approx(expected, abs=1e-4)
        mean = sum(expected) / 7
        assert result["reward"] == result["score"] == pytest.approx(mean, abs=1e-4)
        assert result["uncertainty"] == pytest.approx((sum((m - mean) ** 2 for m in expected) / 7) ** 0.5, abs=1e-4)
    assert len({round(result["score"], 3) for result in results}) == 3


def test_a_panel_is_loaded_as_the_default_and_a_bundle_in_its_place(near: TestClient) -> None:
    for name, replaced in (("local@1", "guards@1"), ("rm-a@1", "local@1"), ("guards@1", "rm-a@1")):
        assert near.post(f"/models/{name}/load").json() == {"default": name, "replaced": replaced}
        assert near.post("/reward", json={"samples": SAMPLES}).json()["model"] == name
    assert near.post("/models/absent@1/load").status_code == 404


def test_results_do_not_depend_on_neighbours(near: TestClient) -> None:
    alone = [ask(near, [sample])[0]["members"] for sample in SAMPLES]
    assert alone == [pytest.approx(result["members"], abs=1e-4) for result in ask(near)]


def test_scores_are_standardised_on_the_reference(near: TestClient) -> None:
    for model, members in (("guards@2", 3), ("local@1", 2)):
        columns = list(zip(*[result["members"] for result in ask(near, REFERENCE, model=model)], strict=True))
        assert len(columns) == members
        for column in columns:
            assert sum(column) == pytest.approx(0, abs=1e-4)
            assert sum(score**2 for score in column) == pytest.approx(len(REFERENCE), abs=1e-3)


def test_a_panel_is_named_wherever_a_reward_model_is(near: TestClient) -> None:
    (plain,) = ask(near, SAMPLES[:1], model="rm-a@1")
    (panel,) = ask(near, SAMPLES[:1], model="local@1", aggregation={"method": "min"})
    objectives = [
        {"kind": "preference"},
        {"kind": "ensemble", "model": "local@1", "aggregation": {"method": "min"}, "weight": 2},
    ]
    (both,) = ask(near, SAMPLES[:1], model="rm-a@1", objectives=objectives)
    assert both["reward"] == pytest.approx(plain["reward"] + 2 * min(panel["members"]), abs=1e-4)
    assert {"guards@1", "local@1"} <= set(near.get("/models").json()["loaded"])
    assert near.post("/reward", json={"samples": SAMPLES, "model": "local@2"}).status_code == 404


def test_other_trainers_dialects_give_a_panels_reward(near: TestClient) -> None:
    """A prompt in the backbone's chat template is written anew in each member's own."""
    head = "<|im_start|>user\nName a fruit.<|im_end|>\n<|im_start|>assistant\n"
    expected = pytest.approx(ask(near, SAMPLES[2:], model="local@1")[0]["reward"], abs=1e-4)
    body: dict[str, Any] = {"query": [head + "Pear<|im_end|>"], "prompts": [head], "model": "local@1"}
    assert near.post("/get_reward", json=body).json()["rewards"] == [expected]
    body = {"input": head + "Pear<|im_end|>\n", "model": "local@1"}
    assert near.post("/classify", json=body).json()["data"][0]["probs"] == [expected]
    body = {"text_1": "Name a fruit.", "text_2": "Pear", "model": "local@1"}
    assert near.post("/score", json=body).json()["data"][0]["score"] == expected


def test_one_sample_that_a_member_cannot_score_fails_alone(near: TestClient) -> None:
    long = {"prompt": "Hi", "response": "x" * 60}
    fine, failed, empty = ask(near, [SAMPLES[2], long, {"prompt": "Hi", "response": ""}], model="short@1")
    assert "score" in fine
    assert failed["error_type"] == empty["error_type"] == "scoring"
    assert failed["error"].startswith("member 0 of short@1 (http://127.0.0.1:")
    assert "60 tokens" in failed["error"]
    # BERT's 64 tokens hold a prompt that was cut, and no longer response.
    cut, failed = ask(
        near, [{"prompt": "a" * 99, "response": "b"}, {"prompt": "a", "response": "b" * 99}], model="local@1"
    )
    assert cut["truncated"] is True
    assert "the response has 99 tokens, and this model reads 64" in failed["error"]


def test_a_remote_that_answers_500_gives_failures_and_no_zero(near: TestClient) -> None:
    for result in ask(near, model="broken@1"):
        assert set(result) == {"error", "error_type"}
        assert result["error_type"] == "scoring"
        assert "answered 500" in result["error"]


@pytest.mark.parametrize(
    ("model", "status", "said"),
    [
        ("wrong@1", 409, "nothing is named rm-absent; correct its entry"),
        ("locked@1", 409, "no key"),
        ("slow@1", 503, "did not answer POST /held/reward within 0.2 s"),
    ],
)
def test_a_remote_that_serves_nobody_fails_the_request(near: TestClient, model: str, status: int, said: str) -> None:
    answer = near.post("/reward", json={"samples": SAMPLES, "model": model})
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_remote_that_is_down_is_tried_again_and_then_unavailable(
    near: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = near.app.state.runtime.worker().library.get("gone@1")._members[0].member  # type: ignore[attr-defined]
    slept: list[float] = []
    monkeypatch.setattr(member._client, "_sleep", slept.append)
    answer = near.post("/reward", json={"samples": SAMPLES, "model": "gone@1"})
    assert (answer.status_code, answer.json()["error_type"]) == (503, "unavailable")
    assert "cannot be reached" in answer.json()["error"]
    assert len(slept) == 5


def test_a_remote_that_hangs_holds_up_no_other_model(near: TestClient) -> None:
    Broken.held.clear()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, near, SAMPLES, model="held@1")
        try:
            assert Broken.held.wait(30)
            assert "score" in ask(near, model="rm-a@1")[0]
            assert "score" in ask(near, model="guards@1")[0]
            assert not held.done()
            assert not near.app.state.runtime.worker().drain(0.01)  # type: ignore[attr-defined]
        finally:
            near.app.state.runtime.worker()._draining = False  # type: ignore[attr-defined]
            Broken.let_go.set()
        assert {result["error_type"] for result in held.result(30)} == {"scoring"}


@pytest.mark.parametrize(
    ("ref", "member", "said"),
    [
        ("rm-a@7", {}, "has a published reward model rm-a; give the panel another name"),
        ("g@1", {"model": "llama"}, "members.0: .*outputs 0 .*label is null; name the one"),
        ("g@1", {"model": "tiny", "label": 0}, "members.0: .*has no score.weight"),
        ("g@1", {"model": "absent"}, "members.0: .*absent"),
        (
            "g@1",
            {"kind": "remote", "api_key_env": "RLHF_TEST_NO_KEY"},
            "members.0: api_key_env='RLHF_TEST_NO_KEY' is not set",
        ),
        ("g@1", {"model": "bert", "mean": None, "std": None}, "scores all 2 samples of the panel's reference"),
    ],
)
def test_a_panel_that_cannot_be_served_stops_the_start(
    near: TestClient, folder: Path, tmp_path: Path, ref: str, member: dict[str, Any], said: str
) -> None:
    if member.get("kind") == "remote":
        entry = {"url": "http://127.0.0.1:1", "dialect": "native", **PLAIN, **member}
    else:
        entry = {"kind": "classifier", **PLAIN, **member, "model": str(folder / member.get("model", "bert"))}
    file = tmp_path / "panels.json"
    file.write_text(json.dumps({ref: {"members": [entry], "reference": [REFERENCE[0]] * 2}}))
    settings = RewardSettings(model=str(folder / "tiny"), store=folder / "store", reward_panels=file)
    with pytest.raises(ValueError, match=f"RLHF_REWARD_PANELS: {file}: {ref}: .*{said}"):
        load_scorer(settings)


def test_a_file_that_cannot_be_read_is_a_wrong_setting(folder: Path) -> None:
    with pytest.raises(ValidationError, match=r"RLHF_REWARD_PANELS: .*absent.json cannot be read"):
        RewardSettings(model=str(folder / "tiny"), reward_panels=folder / "absent.json")
