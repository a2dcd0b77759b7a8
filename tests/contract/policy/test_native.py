"""The native dialect: what is answered, and what is refused with which words."""

import math
import re
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.decisions import Decision, decide
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import ErrorBody
from rlhf.contracts.policy import GenerateRequest, GenerateResponse
from services.policy.app import create_app
from services.policy.settings import PolicySettings
from tests.unit.policy.publishing import publish
from tests.waiting import wait_ready

EXTRAS = {"token_ids": True, "logprobs": True, "prompt_token_ids": True}


def ask(client: TestClient, prompts: list | None = None, extras: dict | None = None, **body) -> GenerateResponse:
    sampling = {"max_new_tokens": 6, "seed": 1, **body.pop("sampling", {})}
    answer = client.post(
        "/generate", json={"prompts": prompts or ["hi"], "sampling": sampling, "return": extras or {}, **body}
    )
    assert answer.status_code == 200, answer.text
    return GenerateResponse.model_validate_json(answer.content)


def refused(client: TestClient, status: int, kind: str, path: str = "/generate", **request) -> str:
    """The message of an error, after checking its shape."""
    answer = client.post(path, **request)
    body = ErrorBody.model_validate_json(answer.content)
    assert (answer.status_code, body.error_type) == (status, kind), answer.text
    assert body.request_id == answer.headers["x-request-id"]
    return body.error


def test_results_come_in_order_of_prompt_then_sample(client: TestClient) -> None:
    answer = ask(client, ["one", "a much longer prompt"], sampling={"n": 2})
    assert [(r.prompt_index, r.sample_index) for r in answer.results] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert (answer.model, answer.adapter, answer.policy_version) == ("tiny-llama", None, 0)
    assert answer.timings.inference_s > 0
    assert all(
        r.token_ids is r.behavior_logprobs is r.model_logprobs is r.prompt_token_ids is None for r in answer.results
    )
    assert all(r.seed == 1 for r in answer.results)


def test_extras_have_one_entry_a_token(client: TestClient) -> None:
    result = ask(client, extras=EXTRAS).results[0]
    assert len(result.token_ids) == len(result.behavior_logprobs) == len(result.model_logprobs)
    assert len(result.token_ids) == result.generated_tokens
    assert result.behavior_logprobs == result.model_logprobs
    # <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n: 3 special tokens and 4+1+2+1+9+1 bytes.
    assert len(result.prompt_token_ids) == 21
    assert result.prompt_token_ids[0] == 256


def test_a_text_is_one_user_turn(client: TestClient) -> None:
    as_text, as_turns = ["hi"], [[{"role": "user", "content": "hi"}]]
    ids = [ask(client, prompts, EXTRAS).results[0].prompt_token_ids for prompts in (as_text, as_turns)]
    assert ids[0] == ids[1]
    conversation = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert len(ask(client, [conversation], EXTRAS).results[0].prompt_token_ids) > 21


def test_the_same_seed_the_same_text_beside_other_requests(client: TestClient) -> None:
    alone = ask(client, ["hi"], EXTRAS, sampling={"seed": 5, "n": 2})
    answers: list[GenerateResponse] = []
    threads = [
        threading.Thread(
            target=lambda s=seed: answers.append(ask(client, ["hi"], EXTRAS, sampling={"seed": s, "n": 2}))
        )
        for seed in (5, 6, 5, 7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same = [a for a in answers if a.results[0].seed == 5]
    assert len(answers) == 4
    assert len(same) == 2
    for answer in same:
        assert [r.token_ids for r in answer.results] == [r.token_ids for r in alone.results]


def test_a_drawn_seed_is_reported_and_repeats_the_answer(client: TestClient) -> None:
    first = ask(client, extras=EXTRAS, sampling={"seed": None})
    again = ask(client, extras=EXTRAS, sampling={"seed": first.results[0].seed})
    assert again.results[0].token_ids == first.results[0].token_ids


def test_text_stops_before_the_stop_text_and_ids_go_on(client: TestClient) -> None:
    free = ask(client, extras=EXTRAS, sampling={"max_new_tokens": 40, "min_new_tokens": 40, "seed": 2}).results[0]
    stop = next(c for i, c in enumerate(free.text) if i > 2 and c.isascii() and c not in free.text[:i])
    cut = ask(client, extras=EXTRAS, sampling={"max_new_tokens": 40, "min_new_tokens": 40, "seed": 2, "stop": [stop]})
    assert cut.results[0].finish_reason == "stop_sequence"
    assert cut.results[0].text == free.text.partition(stop)[0]
    assert cut.results[0].token_ids == free.token_ids[: len(cut.results[0].token_ids)]


@pytest.mark.parametrize("prompt", ["", " ", "\0", "a\0b", "🙂🙂", "<|im_end|>", "日本語", "\u202e\ufeff"])
def test_unusual_prompts_are_answered(client: TestClient, neo_client: TestClient, prompt: str) -> None:
    for service in (client, neo_client):
        assert ask(service, [prompt]).results[0].generated_tokens >= 1


def test_penalties_are_accepted_together(client: TestClient) -> None:
    sampling = {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "top_k": 20, "top_p": 0.9, "temperature": 0.7}
    result = ask(client, extras=EXTRAS, sampling={**sampling, "max_new_tokens": 40}).results[0]
    assert result.behavior_logprobs != result.model_logprobs


def test_an_adapter_is_loaded_on_first_use(client: TestClient, store: ArtifactStore, model_folder: Path) -> None:
    publish(store, model_folder, "ppo-1", 3)
    base = ask(client, extras=EXTRAS, sampling={"temperature": 0})
    adapted = ask(client, extras=EXTRAS, adapter="ppo-1@3", sampling={"temperature": 0})
    assert (adapted.adapter, adapted.policy_version) == ("ppo-1@3", 3)
    assert adapted.results[0].model_logprobs != pytest.approx(base.results[0].model_logprobs, abs=1e-3)
    assert client.get("/adapters").json()["adapters"][-1] == "ppo-1@3"
    assert ask(client, extras=EXTRAS, sampling={"temperature": 0}).results == base.results


def test_latest_is_the_newest_accepted_version(client: TestClient, store: ArtifactStore, model_folder: Path) -> None:
    body = {"prompts": ["hi"], "adapter": "gated@latest", "sampling": {"max_new_tokens": 8, "seed": 1}}
    assert "nothing is named gated" in refused(client, 404, "not_found", json=body)
    for version in (1, 2):
        publish(store, model_folder, "gated", version, seed=version)
    decide(store, "gated", Decision(version=2, state="rejected", evaluation="eval-1", reasons=["rep4 is 1 (gate < 1)"]))
    told = refused(client, 404, "not_found", json=body)
    assert "no version of gated has passed its gates" in told
    assert "gated@2 was rejected by evaluation eval-1: rep4 is 1 (gate < 1)" in told
    decide(store, "gated", Decision(version=1, state="accepted", evaluation="eval-2"))
    for version in (1, 2):
        decide(store, "gated", Decision(version=version, state="accepted", evaluation="eval-3"))
        answer = client.post("/generate", json=body).json()
        assert (answer["adapter"], answer["policy_version"]) == (f"gated@{version}", version)
        named = client.post("/generate", json=body | {"adapter": f"gated@{version}"}).json()
        assert answer["results"] == named["results"]
    samples = [{"prompt": "hi", "response": "a"}]
    assert client.post("/logprobs", json={"samples": samples, "adapter": "gated@latest"}).json()["policy_version"] == 2
    parameters = {"adapter_id": "gated@latest", "max_new_tokens": 4}
    assert client.post("/generate", json={"inputs": "hi", "parameters": parameters}).status_code == 200
    chat = {"model": "gated@latest", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert client.post("/v1/chat/completions", json=chat).json()["model"] == "gated@2"


def test_unknown_and_corrupt_adapters(client: TestClient, store: ArtifactStore, model_folder: Path) -> None:
    body = {"prompts": ["hi"], "adapter": "nobody@1"}
    assert "nobody@1 does not exist" in refused(client, 404, "not_found", json=body)
    publish(store, model_folder, "broken", 1)
    (store.root / "adapters/broken/1/adapter_model.safetensors").write_bytes(b"x")
    body = {"prompts": ["hi"], "adapter": "broken@1"}
    assert "adapter_model.safetensors of broken@1 is corrupt" in refused(client, 409, "conflict", json=body)
    ask(client)


@pytest.mark.parametrize(
    "adapter", ["../../etc@1", "job", "job@", "job@x", "/abs@1", "job@1/../2", "Job@1", "http://h/a@1"]
)
def test_names_that_are_no_references(client: TestClient, adapter: str) -> None:
    assert "adapter" in refused(client, 422, "validation", json={"prompts": ["hi"], "adapter": adapter})


def test_a_prompt_that_leaves_no_room(client: TestClient) -> None:
    body = {"prompts": ["hi", "hi there"], "sampling": {"max_new_tokens": 488}}
    # "hi" renders to 21 tokens and leaves 491 of 512; "hi there" to 27, which leave 485.
    message = refused(client, 422, "validation", json=body)
    assert message == (
        "max_new_tokens=488 exceeds the 512 tokens this model can hold together with a 27-token prompt (prompt 1); "
        "lower it to 485 or less"
    )
    assert "has 619 tokens" in refused(client, 422, "validation", json={"prompts": ["x" * 600]})  # 600 + 19


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": [[]]}, "prompts"),
        ({"prompts": "hi"}, "prompts"),
        ({"prompts": [3]}, "prompts"),
        ({"prompts": ["hi"], "model": "m"}, "model: unknown field"),
        ({"prompts": ["hi"], "inputs": "hi"}, "inputs: unknown field"),
        ({"prompts": ["hi"], "sampling": {"temprature": 1}}, "sampling.temprature: unknown field"),
        ({"prompts": ["hi"], "sampling": {"temperature": -1}}, "sampling.temperature"),
        ({"prompts": ["hi"], "sampling": {"top_p": 0}}, "sampling.top_p"),
        ({"prompts": ["hi"], "sampling": {"top_k": -1}}, "sampling.top_k"),
        ({"prompts": ["hi"], "sampling": {"repetition_penalty": 0}}, "sampling.repetition_penalty"),
        ({"prompts": ["hi"], "sampling": {"max_new_tokens": 0}}, "sampling.max_new_tokens"),
        ({"prompts": ["hi"], "sampling": {"seed": -1}}, "sampling.seed"),
        ({"prompts": ["hi"], "sampling": {"stop": [""]}}, "empty text"),
        ({"prompts": ["hi"], "sampling": {"min_new_tokens": 9, "max_new_tokens": 8}}, "lower it to 8 or less"),
        ({"prompts": [[{"role": "robot", "content": "x"}]]}, "role"),
        ({}, "`prompts` (native) or `inputs` (TGI)"),
        ({"prompt": "hi"}, "`prompts` (native) or `inputs` (TGI)"),
        ([], "`prompts` (native) or `inputs` (TGI)"),
        ("hi", "`prompts` (native) or `inputs` (TGI)"),
        (None, "body"),
    ],
)
def test_wrong_bodies_name_what_is_wrong(client: TestClient, body, words: str) -> None:
    assert words in refused(client, 422, "validation", json=body)


@pytest.mark.parametrize("body", [b"", b"{", b'{"prompts": ["hi"], "sampling": {"temperature": NaN}}', b"\xff\xfe"])
def test_bodies_that_are_no_json(client: TestClient, body: bytes) -> None:
    refused(client, 422, "validation", content=body, headers={"content-type": "application/json"})


def test_half_a_surrogate_pair(client: TestClient) -> None:
    body = rb'{"prompts": ["ok", "a\ud800b"]}'
    message = refused(client, 422, "validation", content=body, headers={"content-type": "application/json"})
    assert message == "prompt 1 has the lone surrogate '\\ud800'; send whole characters"


def test_too_much_at_once(client: TestClient) -> None:
    body = {"prompts": ["hi"] * 6, "sampling": {"n": 10}}
    assert "60 responses, a request may ask for 50" in refused(client, 413, "too_large", json=body)
    assert "100000" in refused(client, 413, "too_large", json={"prompts": ["x" * 200_000]})
    # Without a length in its head, a body is measured as it comes.
    assert "over 100000" in refused(client, 413, "too_large", content=iter([b" " * 60_000] * 2))


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic a-key", "Bearer ", "Bearer ä"])
def test_without_the_key(client: TestClient, header: str | None) -> None:
    headers = {"Authorization": (header or "").encode()}
    assert "RLHF_API_KEY" in refused(client, 401, "unauthorized", json={"prompts": ["hi"]}, headers=headers)
    assert client.get("/adapters", headers=headers).status_code == 401
    for path in ("/health", "/ready", "/metrics"):
        assert client.get(path, headers=headers).status_code == 200


def test_a_failed_generation(client: TestClient) -> None:
    sampling = {"no_repeat_ngram_size": 1, "min_new_tokens": 300, "max_new_tokens": 300}
    message = refused(client, 424, "generation", json={"prompts": ["hi"], "sampling": sampling})
    assert "no token was allowed" in message


def test_info_names_model_and_limits(client: TestClient) -> None:
    info = client.get("/info").json()
    assert (info["model_id"], info["model_type"], info["max_total_tokens"]) == ("tiny-llama", "llama", 512)
    assert info["max_request_rows"] == 50


def test_the_likeliest_tokens_are_those_left_by_the_filters(client: TestClient) -> None:
    answer = ask(client, ["hi"], {"top_logprobs": 5, "logprobs": True}, sampling={"top_k": 3, "max_new_tokens": 6})
    result = answer.results[0]
    assert [len(top) for top in result.top_logprobs] == [3] * result.generated_tokens
    for chosen, top in zip(result.behavior_logprobs, result.top_logprobs, strict=True):
        assert chosen in [pytest.approx(token.logprob) for token in top]
        assert sum(math.exp(token.logprob) for token in top) == pytest.approx(1)


def test_metrics_count_tokens(client: TestClient) -> None:
    def total() -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("tgi_request_generated_tokens_sum ")).split()[1])

    before = total()
    ask(client, sampling={"min_new_tokens": 6, "n": 3})
    assert total() - before == 18
    text = client.get("/metrics").text
    assert all(name in text for name in ("tgi_batch_current_size", "tgi_queue_size", "adapters_loaded"))


def test_openapi_documents_both_bodies(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {one["$ref"].rpartition("/")[2] for one in body["oneOf"]} == {"GenerateRequest", "TgiRequest"}


def test_the_client_of_the_project_sends_what_is_expected(client: TestClient) -> None:
    from rlhf.clients.policy import PolicyClient

    policy = PolicyClient("http://testserver", "a-key")
    policy._http = client
    request = GenerateRequest.model_validate({"prompts": ["hi"], "sampling": {"max_new_tokens": 3}, "return": EXTRAS})
    assert policy.generate(request).results[0].token_ids
    assert policy.ready()


def test_not_ready_while_loading_and_after_a_failure(tmp_path: Path) -> None:
    with TestClient(create_app(PolicySettings(model=str(tmp_path / "nothing"), store=tmp_path))) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        deadline = time.monotonic() + 300
        while "could not be loaded" not in (reason := client.get("/ready").json()["error"]):
            assert "loading" in reason
            assert time.monotonic() < deadline
            time.sleep(0.01)
        answer = client.post("/generate", json={"prompts": ["hi"]})
        assert answer.status_code == 503
        assert "could not be loaded" in answer.json()["error"]


def test_draining_refuses_new_requests(model_folder: Path, tmp_path: Path) -> None:
    app = create_app(PolicySettings(model=str(model_folder), store=tmp_path, threads=1))
    with TestClient(app) as client:
        wait_ready(client)
        app.state.runtime.drain()
        answer = client.post("/generate", json={"prompts": ["hi"]})
        assert (answer.status_code, answer.json()["error_type"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "2"
        assert "draining" in client.get("/ready").json()["error"]
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-request-id": "mine-1"}, "mine-1"),
        ({"traceparent": f"00-{'4bf9' * 8}-{'b' * 16}-01"}, "4bf9" * 8),
        ({"x-request-id": "mine-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, "mine-1"),
        ({"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}, None),
        ({"traceparent": "nonsense"}, None),
        ({"x-request-id": "x" * 129}, None),
    ],
)
def test_a_request_is_known_by_the_callers_id_or_trace(client: TestClient, headers, expected) -> None:
    told = client.get("/health", headers=headers).headers["x-request-id"]
    if expected is None:
        assert re.fullmatch("[0-9a-f]{32}", told)
        assert told != "0" * 32
    else:
        assert told == expected
