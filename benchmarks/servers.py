"""Servers that a benchmark starts as processes of their own, on free ports; none outlives the benchmark."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhf.local.machine import choose_ports, physical_cores, thread_environment
from rlhf.local.processes import Program, Supervisor
from rlhf.local.signals import StopSignals
from rlhf.local.stack import http_probe

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A server that is ready.

    Attributes:
        url: without a slash at the end.
        pid: of the process that was started.
        log: its stdout and stderr.
    """

    url: str
    pid: int
    log: Path


def environment(threads: int, **settings: str) -> dict[str, str]:
    """The caller's environment without settings of our services, for so many computing threads, never asking a hub."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RLHF_")}
    return {**inherited, **thread_environment(threads), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **settings}


def free_port() -> int:
    """One that nothing listens on."""
    return choose_ports({"server": 0})["server"]


@contextmanager
def serving(
    name: str, command: Sequence[str], env: Mapping[str, str], port: int, folder: Path, *, ready: str, within: float
) -> Iterator[Server]:
    """Runs a server for the length of the block.

    Args:
        name: for people and for the log.
        command: program and arguments.
        env: its whole environment.
        port: that the command makes it listen on.
        folder: receives its log.
        ready: the path that answers 2xx once it can work.
        within: seconds it may take until then.

    Raises:
        ServiceFailed: it died or did not become ready; shows its last log lines.
    """
    url, log = f"http://{HOST}:{port}", folder / f"{name}.log"
    program = Program(name, command, env, log, http_probe(url + ready), ready_within=within)
    with StopSignals() as signals, Supervisor(signals, lambda line: print(line, file=sys.stderr)) as supervisor:
        supervisor.start([program])
        supervisor.wait_ready()
        yield Server(url, supervisor.pids[name], log)


@contextmanager
def serving_policy(model: str, **settings: str) -> Iterator[Server]:
    """Runs `python -m services.policy`. Args: model, a folder; settings, environment variables besides."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rlhf-bench-") as folder:
        own = {"RLHF_MODEL": model, "RLHF_PORT": str(port), "RLHF_STORE": folder, **settings}
        env = environment(physical_cores(), **own)
        command = [sys.executable, "-m", "services.policy"]
        with serving("policy", command, env, port, Path(folder), ready="/ready", within=180) as server:
            yield server
