"""Finds processes by a text in their arguments, for tests that nothing outlives its supervisor."""

import time
from pathlib import Path

import psutil


def survivors(mark: Path) -> list[str]:
    """Command lines of live processes that mention the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if alive and any(str(mark) in part for part in command):
            found.append(" ".join(command)[:200])
    return found


def wait_until_gone(mark: Path, within: float) -> list[str]:
    """What still runs after so many seconds; returns as soon as nothing does."""
    deadline = time.monotonic() + within
    while (left := survivors(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
