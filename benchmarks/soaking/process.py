"""What the running policy says about itself: memory, gauges, and complaints in its log."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

QUEUE_GAUGES = ("tgi_queue_size", "rlhf_policy_queue_requests")
BATCH_GAUGES = ("tgi_batch_current_size",)
MIB = 2**20
SLOW = re.compile(r"Executing (?P<what>.*) took (?P<seconds>[0-9.]+) seconds")


@dataclass
class MemoryCurve:
    """Resident memory over time: seconds since the start, MiB."""

    points: list[tuple[float, float]] = field(default_factory=list)

    @property
    def start(self) -> float:
        """MiB at the first look."""
        return self.points[0][1]

    @property
    def middle(self) -> float:
        """MiB half-way."""
        return self.points[len(self.points) // 2][1]

    @property
    def end(self) -> float:
        """MiB at the last look."""
        return self.points[-1][1]

    @property
    def slope(self) -> float:
        """MiB a minute, by least squares over the second half: the first one warms caches up."""
        half = self.points[len(self.points) // 2 :]
        at = sum(second for second, _ in half) / len(half)
        level = sum(mib for _, mib in half) / len(half)
        spread = sum((second - at) ** 2 for second, _ in half)
        rise = sum((second - at) * (mib - level) for second, mib in half)
        return 60 * rise / spread if spread else 0.0


@asynccontextmanager
async def watching_memory(pid: int, every: float) -> AsyncIterator[MemoryCurve]:
    """Looks at a process every so many seconds for the length of the block, and once at its end."""
    process, started, curve = psutil.Process(pid), time.monotonic(), MemoryCurve()

    def look() -> None:
        curve.points.append((time.monotonic() - started, process.memory_info().rss / MIB))

    async def look_on() -> None:
        while True:
            look()
            await asyncio.sleep(every)

    task = asyncio.create_task(look_on())
    try:
        yield curve
    finally:
        task.cancel()
        look()


async def read_gauge(client: httpx.AsyncClient, names: Sequence[str]) -> float | None:
    """The first of these series that `/metrics` shows; None when it shows none."""
    lines = (await client.get("/metrics")).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return next((float(values[name]) for name in names if name in values), None)


async def wait_until_idle(client: httpx.AsyncClient, seconds: float) -> dict[str, float | None]:
    """Queue and batch gauges when both are 0, or after some seconds whatever they are."""
    until = time.monotonic() + seconds
    while True:
        seen = {"queue": await read_gauge(client, QUEUE_GAUGES), "batch": await read_gauge(client, BATCH_GAUGES)}
        if not any(seen.values()) or time.monotonic() > until:
            return seen
        await asyncio.sleep(0.5)


def slow_callbacks(log: Path, over: float = 0.1) -> list[str]:
    """What blocked the event loop for longer, by asyncio's own account (PYTHONASYNCIODEBUG=1)."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = SLOW.search(line) if '"asyncio"' in line else None
        if match and float(match["seconds"]) > over:
            found.append(json.loads(line)["message"])
    return found


def errors_logged(log: Path) -> list[str]:
    """Messages of level error, and exceptions that nobody caught."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        if '"level": "error"' in line or line.startswith("Traceback"):
            found.append(line[:300])
    return found
