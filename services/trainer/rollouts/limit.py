"""Runs a call that may take long, under a hard limit and until the worker must stop. Works in any Celery pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")
_POLL_S = 0.2


class LimitExceeded(Exception):
    """The call took longer than its hard limit."""


class StoppedEarly(Exception):
    """The worker had to stop before the call was done."""


class _Call(threading.Thread, Generic[Result]):
    def __init__(self, call: Callable[[], Result]) -> None:
        super().__init__(name="rollout", daemon=True)
        self._call = call
        self.results: list[Result] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.results.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error


def run_limited(call: Callable[[], Result], limit_s: float, stopping: threading.Event, grace_s: float) -> Result:
    """The call's result.

    An abandoned call goes on in its daemon thread until its own timeouts end it, and its result is dropped. That is
    harmless for a rollout: it only reads, and its batch may be pushed once.

    Args:
        call: what to run.
        limit_s: seconds it may take.
        stopping: set when the worker must stop.
        grace_s: seconds after that which the call may still take.

    Raises:
        LimitExceeded, StoppedEarly: the call was abandoned.
    """
    thread = _Call(call)
    started = time.monotonic()
    stopped_at: float | None = None
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        now = time.monotonic()
        if stopping.is_set() and stopped_at is None:
            stopped_at = now
        if thread.is_alive() and stopped_at is not None and now - stopped_at >= grace_s:
            raise StoppedEarly(f"the worker stops, and the call was not done {grace_s:g} s later")
        if thread.is_alive() and now - started >= limit_s:
            raise LimitExceeded(f"not done after {limit_s:g} s (RLHF_ROLLOUT_TIME_LIMIT_S)")
    if thread.error is not None:
        raise thread.error
    return thread.results[0]
