"""The backend `tgi` in front of a server of TGI's dialect: our own, with the tiny model, over HTTP."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from rlhf.artifacts.store import ArtifactStore
from rlhf.local.redis import free_port
from services.policy.app import create_app
from services.policy.engine.rows import sample_seed
from services.policy.settings import PolicySettings
from tests.contract.policy.conftest import KEY
from tests.contract.policy.test_native import refused
from tests.unit.policy.publishing import publish
from tests.waiting import wait_ready


def behind(model: Path, store: ArtifactStore, url: str, **settings: object) -> TestClient:
    given = {"backend": "tgi", "backend_url": url, "backend_api_key": KEY, "max_request_rows": 50, **settings}
    return TestClient(create_app(PolicySettings(model=str(model), store=store.root, **given)))


@pytest.fixture(scope="module")
def words(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model without its weights."""
    folder = tmp_path_factory.mktemp("words") / model_folder.name
    shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def remote(words: Path, store: ArtifactStore, url: str) -> Iterator[TestClient]:
    with behind(words, store, url) as client:
        wait_ready(client)
        yield client


def native(client: TestClient, prompts: list, adapter: str | None = None, **sampling: object) -> list[dict]:
    returns = {"token_ids": True, "logprobs": True, "prompt_token_ids": True, "top_logprobs": 3}
    body = {"prompts": prompts, "adapter": adapter, "sampling": {"max_new_tokens": 8, **sampling}, "return": returns}
    answer = client.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def close_to(result: dict) -> dict:
    """But for float noise, and the seed, which is drawn when none is given."""
    told = {name: value for name, value in result.items() if name not in ("seed", "top_logprobs")}
    for name in ("behavior_logprobs", "model_logprobs"):
        told[name] = told[name] and pytest.approx(told[name], abs=1e-4)
    return told


def test_greedy_answers_are_those_of_the_embedded_engine(client: TestClient, remote: TestClient) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße!"}]
    sampling = {"temperature": 0, "max_new_tokens": 12}
    there, here = native(remote, ["hi", conversation], **sampling), native(client, ["hi", conversation], **sampling)
    assert there == [
        close_to(result) | {"seed": there[0]["seed"], "top_logprobs": there[i]["top_logprobs"]}
        for i, result in enumerate(here)
    ]
    for ours, theirs in zip(here, there, strict=True):
        for mine, other in zip(ours["top_logprobs"], theirs["top_logprobs"], strict=True):
            assert [token["logprob"] for token in mine] == pytest.approx([t["logprob"] for t in other], abs=1e-4)


def test_each_sample_is_drawn_with_its_own_seed(client: TestClient, remote: TestClient) -> None:
    filters = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2}
    results = native(remote, ["hi", "ho"], seed=7, n=2, **filters)
    assert [(result["prompt_index"], result["sample_index"]) for result in results] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for result in results:
        prompt = ["hi", "ho"][result["prompt_index"]]
        seed = sample_seed(7, result["prompt_index"], result["sample_index"])
        assert native(client, [prompt], seed=seed, **filters)[0]["token_ids"] == result["token_ids"]
    again = native(remote, ["hi", "ho"], seed=7, n=2, **filters)
    assert [result["token_ids"] for result in again] == [result["token_ids"] for result in results]


def test_model_logprobs_are_told_where_they_are_known(remote: TestClient) -> None:
    plain = native(remote, ["hi"], temperature=0.7)[0]
    assert plain["model_logprobs"] == plain["behavior_logprobs"]
    penalised = native(remote, ["hi"], repetition_penalty=1.2)[0]
    assert penalised["model_logprobs"] is None
    assert len(penalised["behavior_logprobs"]) == penalised["generated_tokens"]


def test_stop_texts_end_where_ours_end(client: TestClient, remote: TestClient) -> None:
    text = native(client, ["hi"], temperature=0, max_new_tokens=20)[0]["text"]
    stop = text[6:8]
    ended = native(remote, ["hi"], temperature=0, max_new_tokens=20, stop=[stop])[0]
    assert (ended["text"], ended["finish_reason"]) == (text[: text.index(stop)], "stop_sequence")


def test_tgis_own_dialect_with_the_prompts_log_probabilities(client: TestClient, remote: TestClient) -> None:
    parameters = {"details": True, "decoder_input_details": True, "max_new_tokens": 5, "top_n_tokens": 2}
    body = {"inputs": "hi you", "parameters": parameters}
    here, there = (each.post("/generate", json=body).json()["details"] for each in (client, remote))
    assert [t["id"] for t in there["tokens"]] == [t["id"] for t in here["tokens"]]
    assert [t["logprob"] for t in there["prefill"][1:]] == pytest.approx(
        [t["logprob"] for t in here["prefill"][1:]], abs=1e-4
    )
    events = remote.post("/generate_stream", json={"inputs": "hi", "parameters": {"max_new_tokens": 5}}).text
    told = [json.loads(line.removeprefix("data:")) for line in events.split("\n\n") if line]
    assert told[-1]["generated_text"] == "".join(e["token"]["text"] for e in told if not e["token"]["special"])


def test_openais_dialect(client: TestClient, remote: TestClient) -> None:
    # `h`, `i` and `H` are tokens 71, 72 and 39: their bytes less those before `!`.
    completion = {"prompt": [[71, 72], [39]], "max_tokens": 5, "temperature": 0, "logprobs": 1}
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0}
    for path, body in (("/v1/completions", completion), ("/v1/chat/completions", chat)):
        here, there = (each.post(path, json=body).json() for each in (client, remote))
        assert there["usage"] == here["usage"]
        assert [c.get("text", c.get("message")) for c in there["choices"]] == [
            c.get("text", c.get("message")) for c in here["choices"]
        ]
    lines = remote.post("/v1/chat/completions", json=chat | {"stream": True}).text
    assert lines.endswith("data: [DONE]\n\n")


def test_what_is_served_is_told(remote: TestClient, model_folder: Path) -> None:
    info = remote.get("/info").json()
    assert (info["model_id"], info["model_type"], info["max_total_tokens"]) == (model_folder.name, "llama", 512)
    assert info["model_dtype"] == "float32"


@pytest.mark.parametrize(
    "setting",
    [
        {"min_new_tokens": 2},
        {"min_p": 0.1},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"no_repeat_ngram_size": 3},
        {"temperature": 0, "top_k": 5},
    ],
)
def test_what_tgi_cannot_do_is_refused_by_name(remote: TestClient, setting: dict) -> None:
    words = refused(remote, 422, "validation", json={"prompts": ["hi"], "sampling": setting})
    assert f"{list(setting)[-1]}=" in words
    assert "backend tgi" in words


def test_token_ids_without_a_text_are_refused(remote: TestClient) -> None:
    # The alphabet begins with `!` to `~` (94 signs) and the bytes from 161 on but 173, so byte 195, which is half of a
    # character, is token 94 + 195 - 161 - 1 = 127.
    words = refused(remote, 422, "validation", path="/v1/completions", json={"prompt": [127]})
    assert "prompt 0 cannot be sent by the backend tgi" in words


def test_limits_of_the_server_are_told_in_its_words(remote: TestClient) -> None:
    words = refused(remote, 422, "validation", json={"prompts": ["hi"], "sampling": {"stop": list("abcde")}})
    assert "answered 422" in words
    assert "stop" in words


def test_adapters_are_those_of_the_server(
    client: TestClient, remote: TestClient, store: ArtifactStore, model_folder: Path
) -> None:
    ref = publish(store, model_folder, "remote", 1)
    here, there = native(client, ["hi"], ref, temperature=0)[0], native(remote, ["hi"], ref, temperature=0)[0]
    assert here["token_ids"] == there["token_ids"]
    assert remote.get("/adapters").json()["adapters"] == [ref]
    words = refused(remote, 404, "not_found", json={"prompts": ["hi"], "adapter": "nobody@1"})
    assert "nobody@1 does not exist" in words


def test_an_adapter_that_changes_nothing_is_told(
    words: Path, store: ArtifactStore, url: str, model_folder: Path
) -> None:
    # As TGI does with an adapter that it was not started with: it answers as the base model.
    ref = publish(store, model_folder, "untold", 1, size=0.0)
    with behind(words, store, url) as client:
        wait_ready(client)
        told = refused(client, 409, "conflict", json={"prompts": ["hi"], "adapter": ref})
        assert "exactly as without it" in told
        assert client.get("/adapters").json()["adapters"] == []


def test_whole_weights_are_refused(remote: TestClient, store: ArtifactStore) -> None:
    ref = store.publish("adapters", "whole", 1, lambda folder: save_file({}, folder / "replaced.safetensors"))
    told = refused(remote, 409, "conflict", json={"prompts": ["hi"], "adapter": ref})
    assert "which the backend tgi cannot put in the place of its model's: serve it with RLHF_BACKEND=embedded" in told


def test_another_tokenizer_is_noticed(words: Path, store: ArtifactStore, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(words, folder)
    told = json.loads((folder / "tokenizer.json").read_text())
    vocab = told["model"]["vocab"]
    vocab["h"], vocab["i"] = vocab["i"], vocab["h"]
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with behind(folder, store, url) as client:
        wait_ready(client)
        reason = refused(client, 424, "generation", path="/v1/completions", json={"prompt": "ohi"})
    assert "reads prompt 0 as 3 tokens, and we as 3; they differ at token 1" in reason


def test_a_server_that_is_not_there_ends_the_start(words: Path, store: ArtifactStore) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with behind(words, store, url, backend_start_s=0) as client:
        deadline = time.monotonic() + 60
        while "cannot be reached" not in (reason := client.get("/ready").json()["error"]):
            assert time.monotonic() < deadline, reason
            time.sleep(0.05)
        assert url in reason
