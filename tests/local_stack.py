"""`rlhf serve` as a process of its own, for tests that need every service at once."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf.local.processes import launched
from rlhf.local.stack import Endpoints

START_WITHIN_S = 240


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`rlhf serve` from its start; killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "rlhf.cli", "serve", "--model", str(model), "--out", str(folder)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with output_of(folder).open("w") as output:
        # Through the launcher: it ends with this test run, also when that is killed.
        process = subprocess.Popen(launched(command), stdout=output, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def output_of(folder: Path) -> Path:
    return folder.with_suffix(".out")


def wait_for_endpoints(process: subprocess.Popen[str], folder: Path) -> Endpoints:
    path, deadline = folder / "endpoints.json", time.monotonic() + START_WITHIN_S
    while not path.exists():
        assert process.poll() is None, output_of(folder).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return Endpoints.read(path)
