"""What every remote backend does: failures of the server told by their type, clients that leave, drain and stop."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import (
    Conflict,
    GenerationFailed,
    InvalidInput,
    NotFound,
    Overloaded,
    ServiceError,
    TooLarge,
    Unavailable,
)
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import load_text_model
from rlhf.local.redis import free_port
from services.policy.backends.base import ModelFacts
from services.policy.backends.server import Address, Server
from services.policy.backends.vllm import VllmBackend
from services.policy.engine.requests import Limits
from services.policy.engine.rows import Extras
from tests.fake_vllm import answer


def send(reply: Callable[[httpx.Request], httpx.Response]) -> httpx.Response:
    async def once() -> httpx.Response:
        server = Server(Address("vllm", "http://there:1", "a-key", timeout_s=3), httpx.MockTransport(reply))
        try:
            return await server.send("POST", "/v1/completions", {})
        finally:
            await server.close()

    return asyncio.run(once())


@pytest.mark.parametrize(
    ("status", "body", "raised", "words"),
    [
        (400, {"error": {"message": "too hot", "type": "BadRequestError"}}, InvalidInput, "answered 400: too hot"),
        (422, {"error": "Input validation error: too hot", "error_type": "validation"}, InvalidInput, "too hot"),
        (401, {"error": "no key"}, Unavailable, "RLHF_BACKEND_API_KEY"),
        (404, {"detail": "Not Found"}, NotFound, "answered 404: Not Found"),
        (409, {"error": "why"}, Conflict, "why"),
        (413, {"error": "why"}, TooLarge, "why"),
        (424, {"error": "Request failed", "error_type": "generation"}, GenerationFailed, "Request failed"),
        (500, {"error": {"message": "EngineCore died"}}, GenerationFailed, "answered 500: EngineCore died"),
        (503, {"error": "loading"}, Unavailable, "loading"),
    ],
)
def test_what_the_server_says_is_passed_on(status: int, body: dict, raised: type[ServiceError], words: str) -> None:
    with pytest.raises(raised, match=words):
        send(lambda request: httpx.Response(status, json=body))


def test_an_overloaded_server_says_when_to_come_back() -> None:
    for headers, wait in (({"retry-after": "7"}, 7.0), ({}, 2.0)):
        with pytest.raises(Overloaded, match="Model is overloaded") as caught:
            send(lambda request, h=headers: httpx.Response(429, json={"error": "Model is overloaded"}, headers=h))
        assert caught.value.retry_after == wait


def test_words_that_are_no_json_are_quoted() -> None:
    with pytest.raises(GenerationFailed, match="answered 500: <html>"):
        send(lambda request: httpx.Response(500, text="<html>"))


def test_a_server_that_is_slow_or_gone() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with pytest.raises(GenerationFailed, match="did not answer within 3 s"):
        send(slow)

    async def nobody() -> None:
        await Server(Address("tgi", url)).send("GET", "/info")

    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=f"tgi at {url}/info cannot be reached"):
        asyncio.run(nobody())


class Gate:
    """A server that answers when told to, and notes who hangs up."""

    def __init__(self) -> None:
        self.open, self.asked, self.left = threading.Event(), threading.Semaphore(0), threading.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.release()
        try:
            while not self.open.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.left.set()
            raise
        body = {"prompt": [1, 2], "max_tokens": 2, "logprobs": 0, "prompt_logprobs": None, "model": "base"}
        return httpx.Response(200, json=answer(body, -0.5))


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def backend(gate: Gate, folders: dict[str, Path], tmp_path: Path) -> Iterator[VllmBackend]:
    base, model_type = load_text_model(str(folders["llama"]))
    backend = VllmBackend(
        base,
        ModelFacts(model_type),
        Limits(max_batch_rows=2, max_queue=1),
        Server(Address("vllm", "http://there"), httpx.MockTransport(gate)),
        model="base",
        store=ArtifactStore(tmp_path),
        store_there=None,
        adapter_name="{job}@{version}",
        most_adapters=1,
    )
    backend.start()
    yield backend
    backend.stop()
    assert not backend.alive


PAIR = SamplingParams(max_new_tokens=2, n=2)


def test_who_leaves_is_hung_up_on(gate: Gate, backend: VllmBackend) -> None:
    request = backend.submit([[1, 2]], PAIR)
    assert gate.asked.acquire(timeout=30)
    request.abandoned.set()
    assert gate.left.wait(30)
    assert backend.drain(30)
    assert not request.outcome.done()


def test_rows_beyond_the_limit_wait_and_requests_beyond_it_are_refused(gate: Gate, backend: VllmBackend) -> None:
    first = backend.submit([[1, 2]], PAIR)
    for _ in range(2):
        assert gate.asked.acquire(timeout=30)
    second = backend.submit([[1, 2]], PAIR)
    with pytest.raises(Overloaded, match="1 requests are waiting, the limit is 1"):
        backend.submit([[1, 2]], PAIR)
    time.sleep(0.05)
    assert not gate.asked.acquire(blocking=False)
    gate.open.set()
    for request in (first, second):
        outcome = request.outcome.result(30)
        assert [row.token_ids for row in outcome.rows] == [[3, 4], [3, 4]]
    assert second.outcome.result().queue_s >= 0.05


def test_news_come_row_by_row(gate: Gate, backend: VllmBackend) -> None:
    told = threading.Semaphore(0)
    gate.open.set()
    request = backend.submit([[1, 2]], PAIR, progressed=told.release)
    request.outcome.result(30)
    assert told.acquire(timeout=30)
    assert told.acquire(timeout=30)


def test_drain_finishes_what_is_there_and_refuses_what_comes(gate: Gate, backend: VllmBackend) -> None:
    request = backend.submit([[1, 2]], PAIR)
    assert not backend.drain(0.05)
    with pytest.raises(Unavailable, match="is stopping"):
        backend.submit([[1, 2]], PAIR)
    gate.open.set()
    assert backend.drain(30)
    assert len(request.outcome.result().rows) == 2


def test_stop_answers_what_runs_and_hangs_up(gate: Gate, backend: VllmBackend) -> None:
    request = backend.submit([[1, 2]], PAIR)
    assert gate.asked.acquire(timeout=30)
    backend.stop(30)
    with pytest.raises(Unavailable, match="stopped before the response was complete"):
        request.outcome.result(30)
    assert gate.left.is_set()


def test_a_row_that_fails_fails_its_request(backend: VllmBackend, gate: Gate) -> None:
    gate.open.set()
    # Two tokens come where the prompt's log-probabilities were asked for too, and none of those.
    request = backend.submit([[1, 2]], PAIR, extras=Extras(prompt_logprobs=True))
    with pytest.raises(GenerationFailed, match="log-probability for every token of the prompt"):
        request.outcome.result(30)
