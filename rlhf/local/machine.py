"""What this machine offers a stack of processes: cores for its threads and free TCP ports."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from pathlib import Path

import psutil

PORTS = range(20_000, 30_000)
"""Below the range from which systems take ports for outgoing connections, so that none is lost between look and use."""


class PortTaken(ValueError):
    """A port that the user chose is in use; says which option to change."""


def physical_cores() -> int:
    """Cores that this process may use: physical, allowed by affinity, and within the control group's quota."""
    limits = [psutil.cpu_count(logical=False) or os.cpu_count() or 1]
    with suppress(AttributeError):  # no affinity on macOS
        limits.append(len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        limits.append(int(quota) // int(period))  # "max" is no number: no limit
    return max(1, min(limits))


def thread_environment(threads: int) -> dict[str, str]:
    """Environment of a process that computes: its threads, which sleep while they wait.

    Two processes whose OpenMP threads spin while they wait slow each other down several times on a small machine.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "RLHF_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }


def choose_ports(wanted: dict[str, int]) -> dict[str, int]:
    """A port for each name.

    Args:
        wanted: name to port; 0 takes a free one.

    Raises:
        PortTaken: a port that was asked for is in use.
    """
    taken = {port for port in wanted.values() if port}
    candidates = iter(random.sample(PORTS, len(PORTS)))
    chosen = {}
    for name, port in wanted.items():
        if port and not _is_free(port):
            raise PortTaken(f"port {port} is in use; give another with --port-{name}, or 0 for a free one")
        chosen[name] = port or next(p for p in candidates if p not in taken and _is_free(p))
        taken.add(chosen[name])
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do, so that connections of a server just stopped do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
