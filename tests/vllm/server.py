"""vLLM as a process of its own environment. `python -m tests.vllm.server` makes that, once."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.generation.peers import Environment, install_vllm
from benchmarks.servers import HOST, Server, environment, free_port, serving

VLLM = Environment(Path(".venv-vllm"))


@contextmanager
def start_vllm(model: Path, options: Sequence[str]) -> Iterator[Server]:
    port = free_port()
    command = [VLLM.program("vllm"), "serve", str(model), "--host", HOST, "--port", str(port), "--dtype", "float32"]
    env = environment(2, VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1", VLLM_ALLOW_RUNTIME_LORA_UPDATING="True")
    env["PATH"] = f"{VLLM.folder.absolute() / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    with (
        tempfile.TemporaryDirectory(prefix="rlhf-vllm-") as folder,
        serving("vllm", [*command, *options], env, port, Path(folder), ready="/health", within=900) as server,
    ):
        yield server


if __name__ == "__main__":
    install_vllm(VLLM)
