"""Starts programs and starts them again when they die, as Compose's `restart: unless-stopped` would. Not a supervisor.

One thread owns it and calls `tend` often: the kernel ties a child to the thread that made it.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rlhf.local.processes import Program, describe_exit, kill_group, launched

RESTART_AFTER_S = (0.1, 1.5)
"""Bounds of the pause between a death and the next start."""


@dataclass
class _Kept:
    program: Program
    process: subprocess.Popen[bytes]
    killed: bool = False
    start_at: float | None = None


class Keeper:
    """Context manager over processes; leaving it kills them all.

    Attributes:
        kills: how often each was killed here.
        deaths: those that nobody here caused, in words.
    """

    def __init__(self, draw: random.Random) -> None:
        """Args: draw, for the pauses before restarts."""
        self.kills: Counter[str] = Counter()
        self.deaths: list[str] = []
        self._draw = draw
        self._kept: dict[str, _Kept] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for kept in reversed(self._kept.values()):
            kill_group(kept.process.pid)
            kept.process.wait()

    def start(self, programs: Iterable[Program], within: float = 180.0) -> None:
        """Starts programs and waits until all of them are ready.

        Raises:
            TimeoutError: one is not; says why.
        """
        waiting = list(programs)
        for program in waiting:
            self._kept[program.name] = _Kept(program, _spawn(program))
        deadline = time.monotonic() + within
        while waiting:
            self.tend()
            reasons = {program.name: program.probe() for program in waiting}
            waiting = [program for program in waiting if reasons[program.name] is not None]
            if waiting and time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {within:g} s: {reasons}; see {waiting[0].log}")
            time.sleep(0.1)

    def tend(self) -> None:
        """Starts again what has died, once its pause is over."""
        now = time.monotonic()
        for name, kept in self._kept.items():
            if kept.process.poll() is None:
                continue
            if kept.start_at is None:
                kept.start_at = now + self._draw.uniform(*RESTART_AFTER_S)
                if not kept.killed:
                    self.deaths.append(f"{name} {describe_exit(kept.process.returncode)}")
            elif now >= kept.start_at:
                self._kept[name] = _Kept(kept.program, _spawn(kept.program))

    def kill(self, name: str) -> bool:
        """Sends SIGKILL. False when it is not alive at present."""
        kept = self._kept[name]
        if kept.process.poll() is not None:
            return False
        kept.killed = True
        kill_group(kept.process.pid)
        kept.process.wait()
        self.kills[name] += 1
        return True


def _spawn(program: Program) -> subprocess.Popen[bytes]:
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        return subprocess.Popen(
            launched(program.command),
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
