"""Peak memory of the stack's processes, sampled; pages that several share are split between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

INTERVAL_S = 1.0
FULL_LOOK_S = 15.0
"""Least time between two looks at what a process shares: each walks its page tables, 30 ms for two gigabytes."""
MIB = 2**20


@dataclass(frozen=True)
class _Shared:
    """What of a process's resident memory counts elsewhere, MiB; when it was seen, and at which size."""

    amount: float
    resident: float
    seen: float


class MemorySampler:
    """Context manager: a thread that looks once a second, at next to no cost. Processes' children are left out."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        """Args: pids, name to process id at the time of the call."""
        self._pids = pids
        self._peaks: dict[str, float] = {}
        self._shared: dict[int, _Shared] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_done, name="memory", daemon=True)

    @property
    def peaks_mib(self) -> dict[str, float]:
        """Peak of each process, and `total`: the peak of their sum at one time."""
        return {name: round(value, 1) for name, value in self._peaks.items()}

    def __enter__(self) -> Self:
        """Starts looking."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Stops looking."""
        self._done.set()
        self._thread.join()

    def _sample_until_done(self) -> None:
        while not self._done.wait(INTERVAL_S):
            now = {name: self._look(pid) for name, pid in self._pids().items()}
            now["total"] = sum(now.values())
            # A new mapping each time, so that a reader in another thread never sees one that grows.
            self._peaks = self._peaks | {name: max(self._peaks.get(name, 0.0), value) for name, value in now.items()}

    def _look(self, pid: int) -> float:
        """Memory of a process, MiB; 0 when it has just ended."""
        try:
            process = psutil.Process(pid)
            resident = process.memory_info().rss / MIB
            shared = self._shared.get(pid)
            due = shared is None or time.monotonic() - shared.seen > FULL_LOOK_S
            if shared is None or (due and abs(resident - shared.resident) > 0.05 * shared.resident):
                shared = _Shared(shared_mib(process), resident, time.monotonic())
                self._shared[pid] = shared
            return max(0.0, float(resident) - shared.amount)
        except psutil.NoSuchProcess:
            return 0.0


def shared_mib(process: psutil.Process) -> float:
    """Resident memory that counts for other processes: resident less proportional; 0 where the system does not tell."""
    try:
        full = process.memory_full_info()
    except psutil.AccessDenied:
        return 0.0
    return float(full.rss - getattr(full, "pss", full.rss)) / MIB
