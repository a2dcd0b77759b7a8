"""Lines for the person at the terminal, that never break a clean-up."""

from __future__ import annotations

import sys
from contextlib import suppress

from rlhf.local.signals import StopSignals


class Console:
    """Prints lines; once a stop is requested, output that cannot be delivered is dropped."""

    def __init__(self, signals: StopSignals) -> None:
        """Args: signals, which tell whether a stop is requested."""
        self._signals = signals

    def say(self, line: str) -> None:
        """Prints a line at once.

        Raises:
            OSError: nobody reads the output any more, and no stop was requested.
        """
        try:
            print(line, flush=True)
        except OSError:
            if self._signals.requested is None:
                raise

    def complain(self, line: str) -> None:
        """Prints a line to stderr, if anyone reads it."""
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
