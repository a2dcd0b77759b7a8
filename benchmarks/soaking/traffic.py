"""Mixed traffic: streams, batches, clients that leave, wrong bodies, all at once, each checked as far as it can be."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.streams import NoStreams, StreamFailed, events, expect_stream

Answers = dict[str | None, list[int]]
QUESTIONS = (
    "What is the capital of France?",
    "How do I boil an egg?",
    "Give me advice on sleeping better.",
    "List three fruits that are red.",
)
FIXED = "Describe the sea in one sentence."
WRONG: tuple[tuple[str, Any], ...] = (
    ("/generate", {"prompts": []}),
    ("/generate", {"prompts": ["a"], "sampling": {"temperature": -1}}),
    ("/generate", {"prompts": ["a"], "surprise": 1}),
    ("/generate", {"prompts": ["a"], "adapter": "soak@99"}),
    ("/generate", {"prompts": ["a"], "sampling": {"max_new_tokens": 32768}}),
    ("/generate", {"inputs": ""}),
    ("/generate", ["not", "an", "object"]),
    ("/v1/chat/completions", {"messages": []}),
    ("/v1/completions", {"prompt": "a", "temperature": "warm"}),
)
"""Each must answer 4xx."""


@dataclass
class Tally:
    """What the clients saw.

    Attributes:
        statuses: requests by kind and HTTP status, or by the exception that came instead of one.
        wrong: answers that are not what was asked for; the first of each kind.
        fixed_same, fixed_all: greedy answers in the middle of the traffic: those equal to the quiet ones, and all.
            In company the same row is computed in another batch, which may round differently: not a fault.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    fixed_same: int = 0
    fixed_all: int = 0
    no_streams: set[str] = field(default_factory=set)

    def count(self, kind: str, outcome: int | Exception) -> None:
        """One request that was answered, or was not."""
        name = str(outcome) if isinstance(outcome, int) else type(outcome).__name__
        self.statuses[kind, name] += 1

    def check(self, holds: bool, what: str, seen: object) -> None:
        """Notes an answer that is not as it must be."""
        if not holds:
            self.wrong.setdefault(what, f"{seen!r:.300}")


@dataclass(frozen=True)
class Setting:
    """Who is asked, for what, until when."""

    client: httpx.AsyncClient
    adapters: Sequence[str | None]
    model: str
    quiet: Answers
    tokens: int
    until: float
    tally: Tally
    random: random.Random

    def prompt(self) -> list[dict[str, str]]:
        """A conversation."""
        return [{"role": "user", "content": self.random.choice(QUESTIONS)}]

    def adapter(self) -> str | None:
        """One of them, or none."""
        return self.random.choice(self.adapters)


async def fixed_answer(client: httpx.AsyncClient, adapter: str | None, tokens: int) -> list[int]:
    """The greedy token ids for the fixed prompt."""
    prompt = [{"role": "user", "content": FIXED}]
    sampling = {"temperature": 0.0, "max_new_tokens": tokens, "min_new_tokens": tokens}
    body = {"prompts": [prompt], "adapter": adapter, "sampling": sampling, "return": {"token_ids": True}}
    response = await client.post("/generate", json=body)
    response.raise_for_status()
    return list(response.json()["results"][0]["token_ids"])


async def run_traffic(setting: Setting) -> None:
    """All kinds of clients at once, until the time is over."""
    kinds: tuple[tuple[Callable[[Setting], Awaitable[None]], int], ...] = (
        (tgi_stream, 2),
        (chat_stream, 2),
        (native_batch, 2),
        (fixed_probe, 1),
        (leave, 2),
        (wrong_body, 1),
    )
    await asyncio.gather(*(_repeat(one, setting) for one, clients in kinds for _ in range(clients)))


async def _repeat(one: Callable[[Setting], Awaitable[None]], setting: Setting) -> None:
    while time.monotonic() < setting.until:
        kind = one.__name__
        try:
            await one(setting)
        except NoStreams as error:
            setting.tally.no_streams.add(str(error))
            setting.tally.count(kind, error)
            await asyncio.sleep(1.0)
        except (httpx.HTTPError, StreamFailed) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else error
            setting.tally.count(kind, status)
            await asyncio.sleep(0.2)  # a server that refuses at once is not hammered


async def tgi_stream(setting: Setting) -> None:
    """TGI's stream: one event a token, the last one with the whole text."""
    adapter, tally = setting.adapter(), setting.tally
    parameters = {"max_new_tokens": setting.tokens, "do_sample": True, "adapter_id": adapter, "details": True}
    body = {"inputs": setting.random.choice(QUESTIONS), "parameters": parameters}
    pieces, last = [], {}
    async with setting.client.stream("POST", "/generate_stream", json=body) as response:
        await expect_stream(response)
        async for event in events(response):
            last = event
            pieces.append("" if event["token"]["special"] else event["token"]["text"])
    tally.count("tgi_stream", 200)
    tally.check(last.get("generated_text") == "".join(pieces), "TGI's stream is not its generated_text", (pieces, last))
    made = (last.get("details") or {}).get("generated_tokens")
    tally.check(made == len(pieces), "TGI's stream has another number of tokens than it says", (made, len(pieces)))


async def chat_stream(setting: Setting) -> None:
    """OpenAI's stream of a chat."""
    adapter, tally = setting.adapter(), setting.tally
    named = adapter or setting.model
    body = {"model": named, "messages": setting.prompt(), "max_tokens": setting.tokens, "stream": True}
    finished, models = [], set()
    async with setting.client.stream("POST", "/v1/chat/completions", json=body) as response:
        await expect_stream(response)
        async for event in events(response):
            models.add(event["model"])
            finished += [choice["finish_reason"] for choice in event["choices"] if choice["finish_reason"]]
    tally.count("chat_stream", 200)
    tally.check(models == {named}, "a chat's stream names another model", (named, models))
    tally.check(len(finished) == 1, "a chat's stream does not end with one finish_reason", finished)


async def native_batch(setting: Setting) -> None:
    """Two prompts with three samples each."""
    adapter, tally = setting.adapter(), setting.tally
    sampling = {"max_new_tokens": setting.tokens, "n": 3, "temperature": 0.9}
    body = {"prompts": [setting.prompt(), setting.prompt()], "adapter": adapter, "sampling": sampling}
    response = await setting.client.post("/generate", json=body)
    response.raise_for_status()
    tally.count("native_batch", response.status_code)
    answer, version = response.json(), 0 if adapter is None else int(adapter.partition("@")[2])
    given = (answer["adapter"], answer["policy_version"])
    tally.check(given == (adapter, version), "an answer names another adapter or policy_version", (adapter, given))
    order = [(result["prompt_index"], result["sample_index"]) for result in answer["results"]]
    tally.check(order == [(p, s) for p in range(2) for s in range(3)], "samples are missing or out of order", order)


async def fixed_probe(setting: Setting) -> None:
    """The fixed prompt, greedily."""
    adapter = setting.adapter()
    same = await fixed_answer(setting.client, adapter, setting.tokens) == setting.quiet[adapter]
    setting.tally.count("fixed_probe", 200)
    setting.tally.fixed_all += 1
    setting.tally.fixed_same += same


async def leave(setting: Setting) -> None:
    """A client that closes its connection in the middle, of a stream or of a plain request."""
    body: dict[str, Any] = {"inputs": FIXED, "parameters": {"max_new_tokens": 4 * setting.tokens}}
    if adapter := setting.adapter():
        body["parameters"]["adapter_id"] = adapter
    if not setting.tally.no_streams and setting.random.random() < 0.5:
        async with setting.client.stream("POST", "/generate_stream", json=body) as response:
            await expect_stream(response)
            async for event in events(response):
                if event.get("index", 0) >= 2:
                    break
    else:
        pending = asyncio.create_task(setting.client.post("/generate", json=body))
        await asyncio.wait({pending}, timeout=setting.random.uniform(0.02, 1.0))
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
    setting.tally.statuses["leave", "left"] += 1


async def wrong_body(setting: Setting) -> None:
    """A request that cannot be served, and must be told so."""
    path, body = setting.random.choice(WRONG)
    response = await setting.client.post(path, json=body)
    setting.tally.count("wrong_body", response.status_code)
    refused = 400 <= response.status_code < 500
    setting.tally.check(refused, "a wrong body is not refused", (path, json.dumps(body), response.text))
    await asyncio.sleep(0.2)
