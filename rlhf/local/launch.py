"""Becomes the given program after tying its life to the supervisor's; every process of the stack starts through it.

Run by path, in an interpreter without site-packages, so that it costs milliseconds:
`python -I -S launch.py SUPERVISOR_PID COMMAND...`. On Linux the kernel kills the program when the supervisor dies in
whatever way, kill -9 included; elsewhere only the supervisor's own clean-up applies.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def launch(supervisor: int, command: list[str]) -> None:
    """Replaces this process by the command.

    Args:
        supervisor: process id of the parent that must be alive.
        command: program and arguments.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != supervisor:
        # It died before the request above: no signal would ever come.
        sys.exit(f"supervisor {supervisor} is gone; not starting {command[0]}")
    # Python ignores SIGPIPE, and what is ignored stays ignored in the program that follows.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - becoming the program is the point, and no shell is wanted


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
