"""Starts programs as separate processes, watches them, ends them: none outlives its supervisor. No shell, no daemon."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rlhf.local.logtail import read_tail
from rlhf.local.signals import StopSignals

LAUNCH = Path(__file__).with_name("launch.py")
POLL_S = 0.05
PROBE_S = 0.2

Probe = Callable[[], str | None]
"""Why a program is not ready yet, or None when it is; must answer within a second or two."""


@dataclass(frozen=True)
class Program:
    """What to run.

    Attributes:
        name: of the service, for people and for its log.
        command: program and arguments; no secret belongs here, other users can read it.
        environment: the whole environment of the process.
        log: file that receives stdout and stderr.
        probe: tells whether it is ready.
        ready_within: seconds it may take until it is.
        stop_within: seconds from SIGTERM to SIGKILL.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    probe: Probe
    ready_within: float = 180.0
    stop_within: float = 12.0


class ServiceFailed(RuntimeError):
    """A process died or did not become ready; the message says which, why, and shows its last log lines."""

    def __init__(self, service: str, what: str, log: Path | None) -> None:
        """Args: service; what happened to it; log, its file, null when another machine or container has it."""
        self.service = service
        if log is None:
            super().__init__(f"{service} {what}\nits log says more, where it runs")
            return
        lines = read_tail(log)
        shown = "\n".join(f"  | {line}" for line in lines) if lines else "  | (the log is empty)"
        super().__init__(f"{service} {what}\nlast lines of {log}:\n{shown}")


class _Running:
    """A started program. Only `reap` collects its process: until then nobody else can get its process group's id."""

    def __init__(self, program: Program) -> None:
        program.log.parent.mkdir(parents=True, exist_ok=True)
        self.program = program
        self.started = time.monotonic()
        with program.log.open("wb") as log:
            self.process = subprocess.Popen(
                launched(program.command),
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exited(self) -> int | None:
        """Exit code, negative for a signal; None while it runs. Leaves the process unreaped."""
        if self.process.returncode is not None:
            return self.process.returncode
        state = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if state is None:
            return None
        return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status

    def terminate(self) -> None:
        if self.process.returncode is None and self.exited() is None:
            self.process.send_signal(signal.SIGTERM)

    def reap(self) -> None:
        """Kills what is left of the process group and collects the process."""
        if self.process.returncode is None:
            kill_group(self.process.pid)
            self.process.wait()


class Supervisor:
    """Context manager over processes that are started in waves; leaving it stops all of them, the last wave first."""

    def __init__(self, signals: StopSignals, say: Callable[[str], None]) -> None:
        """Args: signals, so that none interrupts a start or the clean-up; say, prints a line."""
        self._signals, self._say = signals, say
        self._waves: list[list[_Running]] = []
        self._waiting: list[_Running] = []
        self._stopped = False

    def __enter__(self) -> Self:
        """Also arms a stop at interpreter exit."""
        atexit.register(self.stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Stops everything."""
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every started service."""
        return {running.program.name: running.process.pid for running in self._all()}

    def start(self, programs: Sequence[Program]) -> None:
        """Starts a wave. Call it from the main thread: the kernel ties a child to the *thread* that made it."""
        wave: list[_Running] = []
        self._waves.append(wave)
        for program in programs:
            with self._signals.held():
                running = _Running(program)
                wave.append(running)
                self._waiting.append(running)

    def wait_ready(self) -> None:
        """Waits until everything started so far is ready.

        Raises:
            ServiceFailed: one died, or took longer than it may.
        """
        while self._waiting:
            self.check()
            for running in list(self._waiting):
                name, took = running.program.name, time.monotonic() - running.started
                reason = running.program.probe()
                if reason is None:
                    self._waiting.remove(running)
                    self._say(f"  {name} ready after {took:.1f} s")
                    continue
                if took > running.program.ready_within:
                    raise ServiceFailed(name, f"is not ready after {took:.0f} s: {reason}", running.program.log)
            time.sleep(PROBE_S if self._waiting else 0)

    def check(self) -> None:
        """Raises ServiceFailed when a process has ended."""
        for running in self._all():
            code = running.exited()
            if code is not None:
                raise ServiceFailed(running.program.name, describe_exit(code), running.program.log)

    def blame(self, within: float = 2.0) -> None:
        """Raises ServiceFailed when a process ends within some seconds: for a caller whose request just failed."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            self.check()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """SIGTERM, a bounded wait, then SIGKILL to the whole group; wave by wave backwards. May be called again."""
        self._signals.silence()
        if self._stopped:
            return
        self._stopped = True
        for wave in reversed(self._waves):
            for running in wave:
                running.terminate()
            deadline = time.monotonic() + max((r.program.stop_within for r in wave), default=0.0)
            while any(r.exited() is None for r in wave) and time.monotonic() < deadline:
                time.sleep(POLL_S)
            for running in wave:
                running.reap()
        atexit.unregister(self.stop)

    def _all(self) -> list[_Running]:
        return [running for wave in self._waves for running in wave]


def launched(command: Sequence[str]) -> list[str]:
    """The command behind the launcher that ties it to this process. Its program is looked up in PATH."""
    return [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), *command]


def kill_group(group: int) -> None:
    """SIGKILL to every process of a group; nothing when none is left (some systems refuse when all are zombies)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """How a process ended, in words. Args: code, negative for a signal."""
    if code >= 0:
        return f"ended by itself with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory, or killed by hand)" if code == -signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


def run_tool(
    command: Sequence[str],
    environment: Mapping[str, str],
    signals: StopSignals | None = None,
    started: Callable[[int], None] | None = None,
) -> str:
    """Runs a program to its end, in a group of its own that ends with this process.

    Args:
        command: program and arguments.
        environment: the whole environment of the process.
        signals: of the calling program, if it handles them.
        started: told the process id, for a caller who measures it.

    Returns:
        What it wrote.

    Raises:
        subprocess.CalledProcessError: it failed; `output` is what it wrote.
    """
    with (signals or StopSignals()).held():
        process = subprocess.Popen(
            launched(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
    if started is not None:
        started(process.pid)
    with process:
        try:
            output, _ = process.communicate()
        except BaseException:
            kill_group(process.pid)
            raise
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, list(command), output=output)
    return output
