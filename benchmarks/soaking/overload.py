"""Far more requests than the queue takes, then clients that leave: what is refused, what is left behind afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx

from benchmarks.soaking.process import MemoryCurve, wait_until_idle
from benchmarks.soaking.traffic import FIXED, Answers, fixed_answer
from benchmarks.streams import NoStreams, StreamFailed, events, expect_stream

MAX_QUEUE = 64
WAVES, GROWTH = 8, 1.05
"""Of the overload; memory settles over the first ones, and after the last may be so many times
that after the one before."""
LEAVING_AT_ONCE = 50
"""So that leaving clients are in the batch and in the queue, and few are refused."""


async def overload(
    client: httpx.AsyncClient, memory: MemoryCurve, quiet: Answers, *, requests: int, leavers: int, tokens: int
) -> tuple[dict[str, Any], list[str]]:
    """Does all of it. Returns the figures, and what must not be."""
    statuses: Counter[str] = Counter()
    after_wave = []
    unannounced = 0
    for _ in range(WAVES):
        seen = await asyncio.gather(*(_one(client, index) for index in range(requests)))
        statuses.update(status for status, _ in seen)
        unannounced += sum(status == "429" and not retry for status, retry in seen)
        await wait_until_idle(client, 60)
        after_wave.append(memory.end)
    left = await _leave(client, leavers, tokens)
    idle = await wait_until_idle(client, 60)
    same = [await fixed_answer(client, adapter, tokens) == answer for adapter, answer in quiet.items()]
    # Refused, answered before it could leave, or left.
    may_be = {"200", "429", "answered", "left"}
    failures = [
        *(f"{count} requests got {status}" for status, count in statuses.items() if status not in ("200", "429")),
        *([f"{unannounced} answers 429 without Retry-After"] if unannounced else []),
        *([] if statuses["200"] else ["no request was answered 200"]),
        *(f"{name} is {value:g} after all clients left" for name, value in idle.items() if value),
        *([] if all(same) else ["greedy answers changed"]),
        *(["memory grows from wave to wave"] if after_wave[-1] > GROWTH * after_wave[-2] else []),
        *(f"{count} leaving clients got {status}" for status, count in left.items() if status not in may_be),
    ]
    figures = {
        "statuses": dict(statuses),
        "left": dict(left),
        "gauges_after": idle,
        "greedy_same": all(same),
        "rss_mib_after_wave": [round(mib, 1) for mib in after_wave],
    }
    return figures, failures


async def _one(client: httpx.AsyncClient, index: int) -> tuple[str, bool]:
    """Status of a short request, and whether it names a time to come back."""
    body = {"prompts": [f"Say {index}."], "sampling": {"max_new_tokens": 8}}
    try:
        response = await client.post("/generate", json=body)
    except httpx.HTTPError as error:
        return type(error).__name__, False
    return str(response.status_code), response.headers.get("retry-after", "").isdigit()


async def _leave(client: httpx.AsyncClient, leavers: int, tokens: int) -> Counter[str]:
    """So many clients, half of them reading a stream, that close their connections before the end."""
    seen: Counter[str] = Counter()
    for start in range(0, leavers, LEAVING_AT_ONCE):
        part = range(start, min(start + LEAVING_AT_ONCE, leavers))
        seen.update(await asyncio.gather(*(_leave_one(client, index, tokens) for index in part)))
    return seen


async def _leave_one(client: httpx.AsyncClient, index: int, tokens: int) -> str:
    chance = random.Random(index)
    streams = index % 2 == 0
    path = "/generate_stream" if streams else "/generate"
    body = {"inputs": FIXED, "parameters": {"max_new_tokens": 8 * tokens, "do_sample": True, "seed": index}}
    request = _read_some(client, path, body) if streams else _post(client, path, body)
    pending = asyncio.create_task(request)
    await asyncio.wait({pending}, timeout=chance.uniform(0.1, 3.0))
    if pending.done():
        return pending.result()
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    return "left"


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> str:
    try:
        return str((await client.post(path, json=body)).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


async def _read_some(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> str:
    """Reads three tokens of a stream, and leaves."""
    try:
        async with client.stream("POST", path, json=body) as response:
            await expect_stream(response)
            async for event in events(response):
                if event.get("index", 0) >= 2:
                    return "left"
    except httpx.HTTPStatusError as error:
        return str(error.response.status_code)
    except (NoStreams, StreamFailed, httpx.HTTPError) as error:
        return type(error).__name__
    return "answered"
