"""TGI's dialect over a real socket, asked by Hugging Face's own client; answers fit TGI's published schema."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import GenerationError, UnknownError, ValidationError

from rlhf.artifacts.store import ArtifactStore
from tests.contract.policy.conftest import KEY, served

SCHEMA = Path(__file__).parents[4] / "shared" / "reference" / "tgi-openapi.json"
"""TGI's published API, where the build machine has it beside the checkout."""


@pytest.fixture(scope="module")
def hf(url: str) -> InferenceClient:
    return InferenceClient(base_url=url, api_key=KEY)


@pytest.fixture(scope="module")
def greedy(hf: InferenceClient) -> str:
    return hf.text_generation("hello", max_new_tokens=16)


def test_text_generation(hf: InferenceClient, greedy: str) -> None:
    answer = hf.text_generation("hello", max_new_tokens=16, details=True, decoder_input_details=True)
    assert answer.generated_text == greedy
    assert len(answer.details.tokens) == answer.details.generated_tokens
    assert "".join(token.text for token in answer.details.prefill) == "hello"


def test_text_generation_streams(hf: InferenceClient, greedy: str) -> None:
    assert "".join(hf.text_generation("hello", max_new_tokens=16, stream=True)).startswith(greedy)
    told = list(hf.text_generation("hello", max_new_tokens=16, stream=True, details=True))
    assert told[-1].generated_text == greedy
    assert told[-1].details.generated_tokens == len(told)


def test_the_best_of_several(hf: InferenceClient) -> None:
    answer = hf.text_generation("hello", max_new_tokens=8, best_of=3, do_sample=True, details=True)
    assert len(answer.details.best_of_sequences) == 2


def test_a_stream_never_shows_a_stop_text(hf: InferenceClient, greedy: str) -> None:
    stop = greedy[5:8]
    told = list(hf.text_generation("hello", max_new_tokens=16, stop=[stop], stream=True, details=True))
    text = greedy[: greedy.index(stop)]
    assert "".join(event.token.text for event in told if not event.token.special) == text
    assert told[-1].generated_text == text
    assert told[-1].details.finish_reason == "stop_sequence"
    assert all(event.generated_text is None and event.details is None for event in told[:-1])


def test_an_error_after_the_first_token_is_the_clients_error(
    hf: InferenceClient, model_folder: Path, store: ArtifactStore
) -> None:
    # Of 258 tokens none may come twice, and EOS not at all: the prompt leaves fewer than 300.
    body = {"no_repeat_ngram_size": 1, "min_tokens": 300}
    turns = [{"role": "user", "content": "hi"}]
    with pytest.raises(GenerationError, match="no token was allowed"):
        list(hf.chat_completion(turns, max_tokens=300, stream=True, extra_body=body))
    with served(model_folder, store) as (url, app):
        stopping = InferenceClient(base_url=url, api_key=KEY)
        events = iter(stopping.text_generation("hello", max_new_tokens=500, stream=True))
        next(events)
        app.state.runtime.worker().stop()
        with pytest.raises(UnknownError, match="policy stopped before the response was complete"):
            list(events)


def test_chat_completion(hf: InferenceClient) -> None:
    turns = [{"role": "user", "content": "hi"}]
    whole = hf.chat_completion(turns, max_tokens=12, temperature=0.7, seed=3)
    pieces = list(hf.chat_completion(turns, max_tokens=12, temperature=0.7, seed=3, stream=True))
    assert "".join(c.delta.content or "" for p in pieces for c in p.choices) == whole.choices[0].message.content


def test_a_wrong_parameter_is_the_clients_validation_error(hf: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="top_p"):
        hf.text_generation("hello", details=True, top_p=1.5)


def test_a_stream_that_nobody_reads_any_more_ends(url: str) -> None:
    def measured(series: str) -> float:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        return float(next((line.split()[1] for line in lines if line.startswith(series)), 0))

    def running() -> float:
        return measured("tgi_batch_current_size ")

    def failed() -> float:
        return measured('tgi_request_failure_total{err="cancelled"}')

    before = failed()
    body = {"prompt": "hi", "max_tokens": 500, "min_tokens": 500, "stream": True, "n": 32}
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert running() == 32
    deadline = time.monotonic() + 30
    while running() > 0 or failed() == before:
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    if not SCHEMA.exists():
        pytest.skip(f"TGI's schema is not at {SCHEMA}")
    return json.loads(SCHEMA.read_text(), object_hook=_as_json_schema)


def _as_json_schema(node: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.0 writes `nullable` where JSON Schema has a type null."""
    return {"anyOf": [node, {"type": "null"}]} if node.pop("nullable", False) else node


TURNS = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
PROMPT = {"prompt": "hi", "max_tokens": 4}
INPUTS = {"inputs": "hi", "parameters": {"max_new_tokens": 4, "details": True, "top_n_tokens": 2}}


def answers(url: str, path: str, body: dict[str, Any]) -> list[Any]:
    """The events of a stream, or the one answer."""
    answer = httpx.post(f"{url}{path}", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [answer.json()]
    lines = [line.removeprefix("data:").strip() for line in answer.text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [
        ("/generate", "GenerateResponse", INPUTS),
        ("/generate", "GenerateResponse", {"inputs": "hi", "parameters": {"decoder_input_details": True}}),
        ("/generate", "GenerateResponse", {"inputs": "hi", "parameters": {"best_of": 2, "top_k": 9, "details": True}}),
        ("/generate_stream", "StreamResponse", INPUTS),
        ("/", "StreamResponse", {**INPUTS, "stream": True}),
        ("/invocations", "SagemakerStreamResponse", {**INPUTS, "stream": True}),
        ("/invocations", "SagemakerResponse", TURNS),
        ("/invocations", "SagemakerResponse", PROMPT),
        ("/v1/chat/completions", "ChatCompletion", {**TURNS, "logprobs": True, "top_logprobs": 3}),
        ("/v1/completions", "CompletionFinal", PROMPT),
        ("/tokenize", "TokenizeResponse", {"inputs": "hi"}),
        ("/chat_tokenize", "ChatTokenizeResponse", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/generate", "ErrorResponse", {"inputs": "hi", "parameters": {"top_k": 0}}),
    ],
)
def test_answers_fit_the_published_schema(
    url: str, published: dict[str, Any], path: str, name: str, body: dict[str, Any]
) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": published["components"]}
    for answer in answers(url, path, body):
        jsonschema_rs.validate(schema, answer)


def test_the_root_answers_with_a_list(url: str, published: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/GenerateResponse", "components": published["components"]}
    # The schema says so of the first. Of the second it does not, but TGI hands it to the same function.
    for path in ("/", "/invocations"):
        ((answer,),) = answers(url, path, INPUTS)
        jsonschema_rs.validate(schema, answer)


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [("/v1/chat/completions", "ChatCompletionChunk", TURNS), ("/v1/completions", "Chunk", PROMPT)],
)
def test_openai_chunks_fit_it_but_for_what_openai_does_otherwise(
    url: str, published: dict[str, Any], path: str, name: str, body: dict[str, Any]
) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": published["components"]}
    for event in answers(url, path, {**body, "stream": True}):
        for choice in event["choices"]:
            # TGI repeats the role in every delta, and has an empty finish_reason before the last.
            if "delta" in choice:
                choice["delta"].setdefault("role", "assistant")
            choice["finish_reason"] = choice["finish_reason"] or ""
        jsonschema_rs.validate(schema, event)


@pytest.mark.parametrize(("path", "name"), [("/info", "Info"), ("/v1/models", "ModelInfo")])
def test_what_the_service_says_of_itself_fits_too(url: str, published: dict[str, Any], path: str, name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": published["components"]}
    said = httpx.get(f"{url}{path}", headers={"Authorization": f"Bearer {KEY}"}).json()
    jsonschema_rs.validate(schema, said["data"][0] if path == "/v1/models" else said)
