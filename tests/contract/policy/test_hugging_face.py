"""TGI's dialect over a real socket, asked by Hugging Face's own client; answers fit TGI's published schema."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError

from tests.contract.policy.conftest import KEY

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


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [
        ("/generate", "GenerateResponse", {"inputs": "hi", "parameters": {"details": True, "top_n_tokens": 2}}),
        ("/generate", "GenerateResponse", {"inputs": "hi", "parameters": {"decoder_input_details": True}}),
        ("/generate", "GenerateResponse", {"inputs": "hi", "parameters": {"best_of": 2, "top_k": 9, "details": True}}),
        ("/generate_stream", "StreamResponse", {"inputs": "hi", "parameters": {"details": True, "top_n_tokens": 2}}),
        ("/tokenize", "TokenizeResponse", {"inputs": "hi"}),
        ("/chat_tokenize", "ChatTokenizeResponse", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/generate", "ErrorResponse", {"inputs": "hi", "parameters": {"top_k": 0}}),
    ],
)
def test_answers_fit_the_published_schema(
    url: str, published: dict[str, Any], path: str, name: str, body: dict[str, Any]
) -> None:
    answer = httpx.post(f"{url}{path}", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data:") for line in answer.text.split("\n\n") if line] if streamed else [answer.text]
    schema = {"$ref": f"#/components/schemas/{name}", "components": published["components"]}
    for line in lines:
        jsonschema_rs.validate(schema, json.loads(line))


def test_info_fits_the_published_schema(url: str, published: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Info", "components": published["components"]}
    info = httpx.get(f"{url}/info", headers={"Authorization": f"Bearer {KEY}"}).json()
    jsonschema_rs.validate(schema, info)
