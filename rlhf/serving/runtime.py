"""What the process of a model service owns: a worker that computes, loaded in the background. No HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from rlhf.contracts.errors import Overloaded, Unavailable

log = logging.getLogger(__name__)


class Worker(Protocol):
    """A thread that owns a model and takes requests from others."""

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""

    def start(self) -> None:
        """Begins to work."""

    def drain(self, seconds: float) -> bool:
        """Takes no new requests and waits for those it has. Returns whether they finished in time."""

    def stop(self, seconds: float) -> None:
        """Ends: requests that are not done answer 503. Args: seconds, to wait for the thread."""


W = TypeVar("W", bound=Worker)


class Runtime(Generic[W]):
    """Loads the worker in a thread, so that the process answers meanwhile, and stops it in order.

    Attributes:
        failure: why the model could not be loaded; the process then ends with exit code 1.
        draining: whether new requests are refused.
        on_failure: called when loading has failed.
    """

    def __init__(self, service: str, model: str, load: Callable[[], W], *, drain_seconds: float) -> None:
        """Args: service, model: names for messages; load, makes the worker; drain_seconds, see the settings."""
        self._service, self._model, self._make, self._drain_seconds = service, model, load, drain_seconds
        self._worker: W | None = None
        self.failure: str | None = None
        self.draining = False
        self.on_failure: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begins to load."""
        threading.Thread(target=self._load, name="loader", daemon=True).start()

    def obstacle(self) -> str | None:
        """Why requests cannot be served now, or None."""
        if self.failure is not None:
            return self.failure
        if self.draining:
            return "draining: it finishes what it has and stops"
        return None if self._worker is not None else f"loading {self._model}"

    def worker(self) -> W:
        """The worker. Raises Unavailable when there is none yet or it is stopping."""
        reason = self.obstacle()
        if reason is not None or self._worker is None:
            raise Unavailable(f"{self._service} is not ready: {reason}; send the request again soon", retry_after=2)
        return self._worker

    def drain(self) -> None:
        """Refuses new requests and waits for running ones, as long as the settings allow. Blocks."""
        self.draining = True
        if self._worker is not None and not self._worker.drain(self._drain_seconds):
            log.info("requests were still running when the time to drain was over")
            self._worker.stop(1.0)

    def stop(self) -> bool:
        """Ends the worker. Returns whether its thread is gone; False when there was none yet: it may be loading."""
        self.draining = True
        if self._worker is None:
            return False
        self._worker.stop(1.0)
        return not self._worker.alive

    def _load(self) -> None:
        try:
            worker = self._make()
        except Exception as error:
            log.exception("the model could not be loaded", extra={"model": self._model})
            self.failure = f"the model {self._model} could not be loaded: {error}"
            self.on_failure()
            return
        worker.start()
        self._worker = worker
        log.info("ready", extra={"model": self._model})


def check_admission(service: str, *, stopping: bool, waiting: int, limit: int) -> None:
    """Whether a worker takes one more request; with its lock held.

    Args:
        service: whose worker, for messages.
        stopping: it drains, or has stopped.
        waiting: requests in its queue.
        limit: most of them, `RLHF_MAX_QUEUE`.

    Raises:
        Unavailable: it is stopping.
        Overloaded: too many wait already.
    """
    if stopping:
        raise Unavailable(f"{service} is stopping and takes no new requests; send it again soon", retry_after=2)
    if waiting >= limit:
        raise Overloaded(
            f"{waiting} requests are waiting, the limit is {limit}; send it again later, or raise RLHF_MAX_QUEUE",
            retry_after=2,
        )
