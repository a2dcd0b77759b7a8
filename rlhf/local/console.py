"""Lines for the person at the terminal, that never break a clean-up."""

from __future__ import annotations

import sys
from contextlib import suppress

from rlhf.local.signals import StopSignals


class OutputLost(Exception):
    """Nobody reads the output any more."""


class Console:
    """Prints lines; once a stop is requested, output that cannot be delivered is dropped."""

    def __init__(self, signals: StopSignals) -> None:
        """Args: signals, which tell whether a stop is requested."""
        self._signals = signals

    def say(self, line: str) -> None:
        """Prints a line at once.

        Raises:
            OutputLost: nobody reads it, and no stop was requested.
        """
        try:
            print(line, flush=True)
        except OSError as error:
            if self._signals.requested is None:
                raise OutputLost from error

    def complain(self, line: str) -> None:
        """Prints a line to stderr, if anyone reads it."""
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
