"""What each server is asked, and how its answers are read. Every one gets the same prompt and settings, greedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.generation.work import PENALTY, Question

Body = Callable[[Question, int], dict[str, Any]]


@dataclass(frozen=True)
class Dialect:
    """One server's routes.

    Attributes:
        path: answers all at once.
        body: of such a request, for so many tokens.
        read: text and number of tokens of the answer.
        stream_path: answers token by token.
        stream_body: of such a request.
        has_token: whether an event of the stream brings text.
    """

    path: str
    body: Body
    read: Callable[[dict[str, Any]], tuple[str, int]]
    stream_path: str
    stream_body: Body
    has_token: Callable[[dict[str, Any]], bool]


def policy() -> Dialect:
    """Ours: the native route, and TGI's for the stream, which cannot ask for a least number of tokens."""

    def body(question: Question, tokens: int) -> dict[str, Any]:
        lengths = {"max_new_tokens": tokens, "min_new_tokens": tokens}
        return {
            "prompts": [question.messages],
            "sampling": {**lengths, "temperature": 0.0, "repetition_penalty": PENALTY},
        }

    def read(answer: dict[str, Any]) -> tuple[str, int]:
        return answer["results"][0]["text"], answer["results"][0]["generated_tokens"]

    def stream_body(question: Question, tokens: int) -> dict[str, Any]:
        return {"inputs": question.text, "parameters": {"max_new_tokens": tokens, "repetition_penalty": PENALTY}}

    return Dialect("/generate", body, read, "/generate_stream", stream_body, lambda event: bool(event.get("token")))


def vllm(model: str) -> Dialect:
    """vLLM: OpenAI's chat route with its extensions."""

    def settings(tokens: int) -> dict[str, Any]:
        lengths = {"max_tokens": tokens, "min_tokens": tokens}
        return {**lengths, "temperature": 0.0, "repetition_penalty": PENALTY}

    return _openai(model, settings)


def transformers_serve(model: str, eos: int) -> Dialect:
    """`transformers serve`: OpenAI's chat route; a text of JSON carries what OpenAI has no name for."""

    def settings(tokens: int) -> dict[str, Any]:
        generation = {
            "max_new_tokens": tokens,
            "min_new_tokens": tokens,
            "do_sample": False,
            "repetition_penalty": PENALTY,
            "eos_token_id": eos,
            "pad_token_id": eos,
        }
        return {"generation_config": json.dumps(generation)}

    return _openai(model, settings)


def _openai(model: str, settings: Callable[[int], dict[str, Any]]) -> Dialect:
    path = "/v1/chat/completions"

    def body(question: Question, tokens: int) -> dict[str, Any]:
        return {"model": model, "messages": question.messages, **settings(tokens)}

    def read(answer: dict[str, Any]) -> tuple[str, int]:
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    def stream_body(question: Question, tokens: int) -> dict[str, Any]:
        return {**body(question, tokens), "stream": True}

    def has_token(event: dict[str, Any]) -> bool:
        return any(choice["delta"].get("content") for choice in event.get("choices", []))

    return Dialect(path, body, read, path, stream_body, has_token)
