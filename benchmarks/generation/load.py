"""Clients that ask a server: each sends its next request when it has the answer to the last. Not the servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx

from benchmarks.generation.dialects import Dialect
from benchmarks.generation.work import Phase, Question, Timing, Work, quantile
from benchmarks.streams import NoStreams, events, expect_stream


class WrongAnswer(Exception):
    """A server refused a request, or did not do the work that it was asked for; says what it sent."""


def measure_server(url: str, dialect: Dialect, work: Work) -> list[Timing]:
    """Does all phases, one after the other.

    Raises:
        WrongAnswer: the work was not done.
        httpx.HTTPError: the server cannot be reached.
    """
    return asyncio.run(_measure_all(url, dialect, work))


async def _measure_all(url: str, dialect: Dialect, work: Work) -> list[Timing]:
    # Idle connections end before a server, after five seconds, ends them under a request.
    endless = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2)
    # No time limit: a server without batching makes the last of 32 clients wait for minutes.
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=endless) as client:
        return [await _measure(client, dialect, phase, work.tokens) for phase in work.phases]


async def _measure(client: httpx.AsyncClient, dialect: Dialect, phase: Phase, tokens: int) -> Timing:
    warm = min(8, tokens)
    await asyncio.gather(*(_ask(client, dialect, question, warm) for question in phase.warm))
    started = time.perf_counter()
    answers = await _closed_loop(phase.measured, lambda question: _ask(client, dialect, question, tokens))
    wall = time.perf_counter() - started
    try:
        firsts = await _closed_loop(phase.streamed, lambda question: _first_token(client, dialect, question, tokens))
    except NoStreams:
        firsts = []
    seconds = [answer[0] for answer in answers]
    return Timing(
        clients=phase.clients,
        tokens_per_s=len(answers) * tokens / wall,
        p50=quantile(seconds, 0.5),
        p95=quantile(seconds, 0.95),
        first_token=quantile([answer[0] for answer in firsts], 0.5) if firsts else None,
        texts=[answer[1] for answer in answers],
    )


async def _closed_loop(
    turns: list[list[Question]], ask: Callable[[Question], Awaitable[tuple[float, str]]]
) -> list[tuple[float, str]]:
    """Answers by turn, then client."""

    async def one_client(index: int) -> list[tuple[float, str]]:
        return [await ask(turn[index]) for turn in turns]

    by_client = await asyncio.gather(*(one_client(index) for index in range(len(turns[0]))))
    return [answers[turn] for turn in range(len(turns)) for answers in by_client]


async def _ask(client: httpx.AsyncClient, dialect: Dialect, question: Question, tokens: int) -> tuple[float, str]:
    """Seconds to the complete answer, and its text."""
    started = time.perf_counter()
    response = await client.post(dialect.path, json=dialect.body(question, tokens))
    seconds = time.perf_counter() - started
    if response.status_code != 200:
        raise WrongAnswer(f"{dialect.path} answers {response.status_code}: {response.text[:300]}")
    text, made = dialect.read(response.json())
    if made != tokens:
        raise WrongAnswer(f"{dialect.path} made {made} tokens, asked for {tokens}: {response.text[:300]}")
    return seconds, text


async def _first_token(
    client: httpx.AsyncClient, dialect: Dialect, question: Question, tokens: int
) -> tuple[float, str]:
    """Seconds to the first token of a stream, which is read to its end, so that the load stays what it is."""
    started, first = time.perf_counter(), None
    async with client.stream("POST", dialect.stream_path, json=dialect.stream_body(question, tokens)) as response:
        await expect_stream(response)
        async for event in events(response):
            if first is None and dialect.has_token(event):
                first = time.perf_counter() - started
    if first is None:
        raise WrongAnswer(f"{dialect.stream_path} ended its stream without a token")
    return first, ""
