"""Clients that leave: their requests are let go at once, wherever in an answer it happens."""

import asyncio
import threading
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from rlhf.contracts.errors import ErrorBody, GenerationFailed
from services.policy.engine.requests import EngineRequest
from services.policy.routes.sse import stream
from services.policy.routes.waiting import Followed, Progress, generate_all, generate_some


class Silent:
    """A feed that has nothing to say."""

    def news(self) -> list[Any]:
        return []

    def rest(self) -> list[Any]:
        return []


class Talking(Silent):
    """A feed that always has something more to say."""

    def news(self) -> list[Any]:
        return [ErrorBody(error="", error_type="internal")]


def queued() -> EngineRequest:
    return EngineRequest(rows=[], adapter=None, seed=0, abandoned=threading.Event())


async def leave() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def stay() -> dict[str, str]:
    await asyncio.Event().wait()
    raise AssertionError


def test_who_leaves_before_the_answer_lets_the_outcome_be() -> None:
    # It is the engine's to resolve; whoever cancels it may do so between the engine's look and its answer.
    async def ask(request: EngineRequest) -> None:
        with pytest.raises(GenerationFailed, match="closed the connection"):
            await generate_all(Request({"type": "http"}, leave), lambda: request)
        await asyncio.sleep(0)

    request = queued()
    asyncio.run(ask(request))
    assert request.abandoned.is_set()
    assert not request.outcome.done()
    request.settle()
    assert request.outcome.result().rows == []


def test_who_leaves_before_the_first_token_lets_the_request_go() -> None:
    async def ask(request: EngineRequest) -> None:
        with pytest.raises(GenerationFailed, match="closed the connection"):
            await generate_some(Request({"type": "http"}, leave), lambda notify: request)

    request = queued()
    asyncio.run(ask(request))
    assert request.abandoned.is_set()


def test_an_answer_in_time_is_not_abandoned() -> None:
    request = queued()
    request.settle()
    assert asyncio.run(generate_all(Request({"type": "http"}, stay), lambda: request)) is request
    assert not request.abandoned.is_set()


@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_a_stream_that_cannot_begin_lets_its_request_go(version: str) -> None:
    async def send(message: dict[str, Any]) -> None:
        raise OSError("the client has gone away")

    async def serve(request: EngineRequest) -> None:
        answer = stream(Request({"type": "http"}, stay), Followed(request, Progress()), Silent())
        with pytest.raises((OSError, ClientDisconnect)):
            await answer({"type": "http", "asgi": {"spec_version": version}}, stay, send)

    request = queued()
    asyncio.run(serve(request))
    assert request.abandoned.is_set()


def test_a_reader_who_is_slow_and_leaves_lets_the_request_go() -> None:
    async def serve(request: EngineRequest) -> None:
        full = asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                full.set()
                await asyncio.Event().wait()  # as uvicorn does while the socket takes no more

        async def leave_then() -> dict[str, str]:
            await full.wait()
            return {"type": "http.disconnect"}

        answer = stream(Request({"type": "http"}, stay), Followed(request, Progress()), Talking())
        await asyncio.wait_for(answer({"type": "http", "asgi": {"spec_version": "2.3"}}, leave_then, send), 30)

    request = queued()
    asyncio.run(serve(request))
    assert request.abandoned.is_set()
