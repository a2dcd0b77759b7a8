"""Ctrl-C, SIGTERM and a lost terminal as one exception in the main thread, once, and never in the middle of a start."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

TERMINAL_LOOK_S = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """Someone asked the program to stop. Not an Exception, so that no handler of failures takes it for one."""

    def __init__(self, number: int) -> None:
        """Args: number, the signal."""
        super().__init__(number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count."""
        return 128 + int(self.signal)


class StopSignals:
    """Context manager: the first stop signal raises StopRequested in the main thread, all later ones do nothing.

    Attributes:
        requested: the first signal, once there was one.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._held = False
        self._previous: dict[signal.Signals, object] = {}
        self._terminals: list[int] = []
        self._left = threading.Event()

    def __enter__(self) -> Self:
        """Installs the handlers."""
        # Asked now: of a terminal that is gone, isatty says that it never was one.
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for number in STOP_SIGNALS:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started under nohup: the terminal is meant to go away
            self._previous[number] = signal.signal(number, self._handle)
        if self._terminals and signal.SIGHUP in self._previous:
            threading.Thread(target=self._watch_terminals, name="terminal", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Puts the former handlers back."""
        self._left.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal waits until the block ends: between a fork and its bookkeeping nothing may be torn apart."""
        before, self._held = self.requested, True
        try:
            yield
        finally:
            self._held = False
        if before is None and self.requested is not None:
            raise StopRequested(self.requested)

    def silence(self) -> None:
        """From now on signals are only noted: what follows is the clean-up, which must run to its end."""
        self._held = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._leave_terminal()
        if self.requested is not None:
            return
        self.requested = signal.Signals(number)
        if not self._held:
            raise StopRequested(number)

    def _watch_terminals(self) -> None:
        """Sends the SIGHUP that does not come when the terminal's first process only waits for us, as make does."""
        while not self._left.wait(TERMINAL_LOOK_S):
            if not all(os.isatty(number) for number in self._terminals):
                os.kill(os.getpid(), signal.SIGHUP)
                return

    def _leave_terminal(self) -> None:
        """Sends output that nobody can see any more to nowhere, so that the clean-up does not fail on a print."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in self._terminals:
            os.dup2(nowhere, number)
        os.close(nowhere)
