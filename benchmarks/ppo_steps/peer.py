"""TRL's side: its environment, and its program in a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.generation.peers import Environment, ensure
from benchmarks.ppo_steps.side import Round, Step
from benchmarks.ppo_steps.work import Work
from benchmarks.servers import environment
from rlhf.local.machine import physical_cores
from rlhf.local.memory import MemorySampler
from rlhf.local.processes import run_tool
from rlhf.local.signals import StopSignals

PEERS = Environment(Path(".venv-peers-ppo"))
TRL = "trl==1.12.0"
INSTALL = 'make bench-ppo ARGS="--install-peers"'


class PeerFailed(RuntimeError):
    """TRL's program ended with an error; has its last lines."""


def install_peers() -> None:
    """Makes TRL's environment unless it is there. Raises subprocess.CalledProcessError: pip has said why."""
    # Our own versions of what both use, so that backbone and kernels are the same.
    ensure(PEERS, lambda peers: peers.install("-c", "constraints.txt", TRL, "peft"))


def measure_trl(work: Work, signals: StopSignals) -> Round:
    """One round of TRL.

    Raises:
        PeerFailed: it could not.
    """
    pids: dict[str, int] = {}
    with MemorySampler(lambda: dict(pids)) as memory:
        told = call_trl(work.settings(), signals, pids)
    # Besides what was seen once a second, the kernel's own high-water mark, which the program tells: a sampled peak of
    # one process would be a little low.
    return Round([Step(**step) for step in told["steps"]], max(memory.peaks_mib["total"], told["peak_mib"]))


def call_trl(settings: dict[str, Any], signals: StopSignals, pids: dict[str, int]) -> dict[str, Any]:
    """What TRL's program prints as its last line. Args: settings, of the work; pids, receives its process id."""
    program = Path(__file__).with_name("trl_program.py")
    with tempfile.TemporaryDirectory(prefix="rlhf-bench-") as folder:
        path = Path(folder) / "work.json"
        path.write_text(json.dumps(settings))
        command = [PEERS.program("python"), str(program), str(path)]
        try:
            output = run_tool(
                command, environment(physical_cores()), signals, started=lambda pid: pids.update({"trl": pid})
            )
        except subprocess.CalledProcessError as error:
            raise PeerFailed("\n".join(error.output.splitlines()[-25:])) from error
    return dict(json.loads(next(line for line in reversed(output.splitlines()) if line.startswith('{"'))))
