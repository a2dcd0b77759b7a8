"""`make bench-soak`: minutes of mixed traffic on a real policy process, and what is left of it afterwards.

Streams of both dialects, batches with several samples, three policies in turn (the base model and two adapters),
clients that leave half-way and wrong bodies, all at once. It fails when any answer was 5xx, an answer was of another
adapter, the event loop was blocked for over 0.1 s (asyncio's own debug mode says so), the queue or the batch is not
empty at the end, or a greedy answer differs from the one before the traffic, token for token.

    --overload   in place of the traffic: 1,000 requests at once against a queue of 64, eight times, then 200 clients
                 that leave half-way. Only 200 and 429 with Retry-After may come, memory must not grow by over 5 %
                 in the last time, later requests must be answered.

make bench-soak ARGS="--minutes 10"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.servers import Server, serving_policy
from benchmarks.soaking.adapters import publish_adapters
from benchmarks.soaking.overload import MAX_QUEUE, overload
from benchmarks.soaking.process import MemoryCurve, errors_logged, slow_callbacks, wait_until_idle, watching_memory
from benchmarks.soaking.traffic import Answers, Setting, Tally, fixed_answer, run_traffic
from rlhf.local.signals import StopRequested


def main() -> int:
    """Runs and prints; returns 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a local folder, Llama family; default: SmolLM2-135M-Instruct")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tokens", type=int, default=24, help="tokens of a response")
    parser.add_argument("--overload", action="store_true", help="overload and leaving clients in place of the traffic")
    parser.add_argument("--requests", type=int, default=1000, help="at once, with --overload")
    parser.add_argument("--leavers", type=int, default=200, help="clients that leave half-way, with --overload")
    options = parser.parse_args()
    from rlhf.local.weights import ensure_smollm2

    model = options.model or str(ensure_smollm2(say=lambda line: print(line, file=sys.stderr)))
    # A connection is a file; the server inherits the limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="rlhf-soak-") as store:
        adapters = [None, *publish_adapters(Path(store), model)]
        settings = {"RLHF_STORE": store, "PYTHONASYNCIODEBUG": "1"}
        if options.overload:
            settings["RLHF_MAX_QUEUE"] = str(MAX_QUEUE)
        try:
            with serving_policy(model, **settings) as server:
                figures, failures = asyncio.run(soak(server, adapters, Path(model).name, options))
                more_figures, more_failures = read_log(server.log)
        except StopRequested as stop:
            return stop.exit_code
    return report({**figures, **more_figures}, [*failures, *more_failures])


async def soak(
    server: Server, adapters: list[str | None], model: str, options: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """Greedy answers first, then the traffic or the overload. Returns the figures, and what must not be."""
    # Idle connections end before the server, after five seconds, ends them under a request.
    endless = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=600, limits=endless) as client,
        watching_memory(server.pid, every=1.0) as memory,
    ):
        quiet: Answers = {adapter: await fixed_answer(client, adapter, options.tokens) for adapter in adapters}
        distinct = len({tuple(ids) for ids in quiet.values()})
        if options.overload:
            amounts = {"requests": options.requests, "leavers": options.leavers, "tokens": options.tokens}
            figures, failures = await overload(client, memory, quiet, **amounts)
        else:
            figures, failures = await traffic(client, quiet, model, options)
    if distinct < len(adapters):
        failures.append(f"only {distinct} of {len(adapters)} policies differ in their answer: the check is void")
    return {**figures, "rss_mib": describe(memory)}, failures


async def traffic(
    client: httpx.AsyncClient, quiet: Answers, model: str, options: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """The traffic, and the greedy answers once more."""
    until, tally = time.monotonic() + 60 * options.minutes, Tally()
    draw = random.Random(0)
    await run_traffic(Setting(client, list(quiet), model, quiet, options.tokens, until, tally, draw))
    idle = await wait_until_idle(client, 60)
    changed = [a for a, ids in quiet.items() if await fixed_answer(client, a, options.tokens) != ids]
    by_kind: dict[str, dict[str, int]] = {}
    for (kind, status), count in sorted(tally.statuses.items()):
        by_kind.setdefault(kind, {})[status] = count
    expected = {"200", "left", "NoStreams"}
    failures = [
        *(
            f"{count} × {status} for {kind}"
            for (kind, status), count in tally.statuses.items()
            if status not in expected and (kind != "wrong_body" or status[:1] == "5")
        ),
        *(f"{what}: {seen}" for what, seen in tally.wrong.items()),
        *(f"{name} is {value:g} after the traffic" for name, value in idle.items() if value),
        *(f"the greedy answer of {adapter or 'the base model'} changed" for adapter in changed),
        *(f"no streams: {reason}" for reason in sorted(tally.no_streams)),
    ]
    figures = {
        "statuses": by_kind,
        "greedy_same": not changed,
        "greedy_same_in_traffic": [tally.fixed_same, tally.fixed_all],
        "gauges_after": idle,
    }
    return figures, failures


def read_log(log: Path) -> tuple[dict[str, Any], list[str]]:
    """What the process logged that it should not have."""
    slow, errors = slow_callbacks(log), errors_logged(log)
    failures = [f"the event loop was blocked: {message}" for message in slow[:5]]
    failures += [f"logged: {line}" for line in errors[:5]]
    return {"slow_callbacks": len(slow), "errors_logged": len(errors)}, failures


def describe(memory: MemoryCurve) -> dict[str, float]:
    """Memory in MiB, and MiB a minute."""
    values = {"start": memory.start, "middle": memory.middle, "end": memory.end, "slope_per_minute": memory.slope}
    return {name: round(value, 2) for name, value in values.items()}


def report(figures: dict[str, Any], failures: list[str]) -> int:
    """Prints what was seen. Returns the exit code."""
    print()
    for name, value in figures.items():
        if name != "statuses":
            print(f"{name:<24} {value}")
    for kind, counts in figures["statuses"].items():
        print(f"{kind:<24} {counts}")
    print("\n" + ("\n".join(f"WRONG: {failure}" for failure in failures) or "everything is as it must be"))
    print(json.dumps({**figures, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
