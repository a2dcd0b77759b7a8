"""A terminal that goes away while its first process is one that only waits, as with `ssh -t HOST make demo`."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.local.survivors import survivors, wait_until_gone

# As make does: starts the command, and waits for it whatever happens to the terminal.
WAITER = """
import signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *_: None)
sys.exit(subprocess.call(sys.argv[1:]))
"""


def test_services_end_when_the_terminal_does(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tests.integration.local.supervised", str(tmp_path), "polite"]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER, *command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        select.select([ours], [], [], 0.05)
    assert len(survivors(tmp_path)) >= 4
    os.close(ours)
    # 128 + SIGHUP
    assert process.wait(60) == 129
    assert wait_until_gone(tmp_path, 10) == []
