"""Peak memory of the stack's processes, sampled; pages that several share are split between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import psutil

INTERVAL_S = 4.0
MIB = 2**20


class MemorySampler:
    """Context manager: a thread looks every few seconds, since a look walks the page tables."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        """Args: pids, name to process id at the time of the call; their children count in."""
        self._pids = pids
        self._peaks: dict[str, float] = {}
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
            now = {name: memory_mib(pid) for name, pid in self._pids().items()}
            now["total"] = sum(now.values())
            for name, value in now.items():
                self._peaks[name] = max(self._peaks.get(name, 0.0), value)


def memory_mib(pid: int) -> float:
    """Memory of a process and its children, MiB: proportional set size where the system tells it, else resident."""
    try:
        process = psutil.Process(pid)
        return sum(_own_mib(p) for p in [process, *process.children(recursive=True)])
    except psutil.Error:
        return 0.0  # it has just ended


def _own_mib(process: psutil.Process) -> float:
    try:
        full = process.memory_full_info()
        return float(getattr(full, "pss", full.rss)) / MIB
    except psutil.AccessDenied:
        return float(process.memory_info().rss) / MIB
    except psutil.NoSuchProcess:
        return 0.0
