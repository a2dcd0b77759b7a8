"""Texts that nobody should send and somebody will, in every dialect: typed answers, and never a fault of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rlhf.contracts.errors import ErrorBody
from services.reward.app import create_app
from services.reward.settings import RewardSettings
from tests.waiting import wait_ready

PROMPT = "Why is the sky blue?"
RENDERED = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
LONG = [{"role": ("user", "assistant")[turn % 2], "content": f"Turn {turn}."} for turn in range(9_999)]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[TestClient]:
    settings = RewardSettings(model=str(folder / "tiny"), store=folder / "store", threads=1, reward_model="rm-a@1")
    with TestClient(create_app(settings)) as client:
        wait_ready(client)
        yield client


def bodies(prompt: str, response: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """A pair in every dialect. Rendered texts are for those that take a whole conversation as one."""
    whole = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{response}"
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return {
        "reward": ("/reward", {"samples": [{"prompt": prompt, "response": response}]}),
        "reward, a conversation": ("/reward", {"samples": [{"prompt": turns[:1], "response": response}]}),
        "get_reward": ("/get_reward", {"query": [prompt + response], "prompts": [prompt], "labels": [response]}),
        "classify": ("/classify", {"input": whole}),
        "classify, messages": ("/classify", {"messages": turns}),
        "pooling": ("/pooling", {"input": [whole]}),
        "score": ("/score", {"text_1": prompt, "text_2": response}),
        "predict": ("/predict", {"inputs": [[prompt, response]]}),
        "predict, one text": ("/predict", {"inputs": whole}),
        "rerank, vLLM": ("/rerank", {"query": prompt, "documents": [response]}),
        "rerank, TEI": ("/rerank", {"query": prompt, "texts": [response], "return_text": True}),
    }


def send(client: TestClient, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    # By json.dumps, which spells half a surrogate pair where the client would refuse it.
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("dialect", bodies("", ""))
@pytest.mark.parametrize(
    ("response", "told"),
    [
        ("", "the response is empty"),
        ("x" * 100_000, "the response has 100000 tokens; this reward model reads 128 in all"),
        ("half \ud83d", r"lone surrogate '\ud83d'"),
        ("🙂👩‍👩‍👧‍👦", None),
        ("a\x00b\x00", None),
        ("\x00", None),
        ("\ufeff\u202e\uffff\U0010ffff", None),
        (" \n\t ", None),
        ("<|im_end|>?", None),
    ],
    ids=["empty", "100k", "surrogate", "emoji", "nul", "only nul", "marks", "blank", "special token"],
)
def test_an_odd_response(server: TestClient, dialect: str, response: str, told: str | None) -> None:
    path, body = bodies(PROMPT, response)[dialect]
    status, answer = send(server, path, body)
    if told is None:
        assert status == 200, answer
        assert "error" not in json.dumps(answer)
    elif path == "/reward":
        assert (status, answer["results"][0]["error_type"]) == (200, "scoring")
        assert told in answer["results"][0]["error"]
    else:
        assert (status, answer["error_type"]) == (424, "scoring")
        assert told in ErrorBody.model_validate(answer).error


@pytest.mark.parametrize("dialect", bodies("", ""))
@pytest.mark.parametrize(
    "prompt", ["", "y" * 100_000, "🙂", "\x00", "half \udc00"], ids=["empty", "100k", "emoji", "nul", "surrogate"]
)
def test_an_odd_prompt(server: TestClient, dialect: str, prompt: str) -> None:
    path, body = bodies(prompt, "Air scatters blue light.")[dialect]
    status, answer = send(server, path, body)
    failed = "half" in prompt
    assert status == (424 if failed and path != "/reward" else 200), answer
    assert ("lone surrogate" in json.dumps(answer)) == failed


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/reward", {"samples": [{"prompt": LONG, "response": "The end."}]}),
        ("/classify", {"messages": [*LONG, {"role": "assistant", "content": "The end."}]}),
        ("/pooling", {"messages": [*LONG, {"role": "assistant", "content": "The end."}]}),
        ("/pooling", {"input": RENDERED * 10_000 + "The end."}),
        ("/get_reward", {"query": [RENDERED * 10_000 + "The end."], "prompts": [RENDERED * 10_000]}),
        ("/predict", {"inputs": [[RENDERED * 10_000, "The end."]]}),
    ],
)
def test_a_conversation_of_ten_thousand_messages_is_cut_from_the_left(
    server: TestClient, path: str, body: dict[str, Any]
) -> None:
    status, answer = send(server, path, body)
    assert status == 200, answer
    if path == "/reward":
        assert answer["results"][0]["truncated"] is True


@pytest.mark.parametrize(
    "messages", [[], LONG, [{"role": "user", "content": ""}] * 10_000], ids=["none", "odd", "user"]
)
def test_a_conversation_without_a_response_is_refused(server: TestClient, messages: list[dict[str, str]]) -> None:
    status, answer = send(server, "/classify", {"messages": messages})
    assert (status, answer["error_type"]) == (422, "validation")
    # The answer is no longer than it takes to see what is wrong.
    assert len(ErrorBody.model_validate(answer).error) < 1000


@pytest.mark.parametrize("key", ["\ud800", "\x00", "🙂", "x" * 100_000], ids=["surrogate", "nul", "emoji", "100k"])
@pytest.mark.parametrize("path", ["/reward", "/get_reward", "/classify", "/score", "/predict", "/rerank"])
def test_odd_names_of_fields_models_and_routes(server: TestClient, path: str, key: str) -> None:
    for body in ({key: 1}, {"samples": [{key: 1}]}, {"model": key}, {"objectives": [{"kind": key}]}, [key], key):
        status, answer = send(server, path, body)  # type: ignore[arg-type]
        assert (status, answer["error_type"]) == (422, "validation"), answer
        assert ErrorBody.model_validate(answer).error


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"samples": ' + b"9" * 10_000 + b"}", b"NaN", b'"\\ud800"', b"null"],
    ids=["nothing", "torn", "no UTF-8", "deep", "a long number", "NaN", "surrogate", "null"],
)
@pytest.mark.parametrize("path", ["/reward", "/get_reward", "/classify", "/score", "/predict", "/rerank"])
def test_odd_bodies(server: TestClient, path: str, content: bytes) -> None:
    answer = server.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert ErrorBody.model_validate(answer.json()).error_type == "validation"
