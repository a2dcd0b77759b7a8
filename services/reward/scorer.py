"""The scorer: one thread that owns the models in this process and scores queued requests, those for one together.

What other servers compute is waited for elsewhere, so that a slow one holds up no other reward model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from rlhf.contracts.errors import InternalError, ServiceError, Unavailable
from rlhf.lm.loading import LanguageModel
from rlhf.serving.runtime import check_admission
from services.reward.instruments import QUEUE
from services.reward.library import Library
from services.reward.model import Outcome
from services.reward.texts import Sample

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(eq=False)
class ScoreRequest:
    """Samples for one reward model, and the promise of an outcome for each."""

    model: str
    samples: Sequence[Sample]
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    outcomes: Future[list[Outcome]] = field(default_factory=Future)


@dataclass(eq=False)
class Call(Generic[T]):
    """Work for the scorer's thread that scores nothing, and the promise of what it returns."""

    work: Callable[[], T]
    result: Future[T] = field(default_factory=Future)

    def run(self) -> None:
        """Keeps the promise, unless nobody waits for it any more."""
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            self.result.set_result(self.work())
        except ServiceError as error:
            self.result.set_exception(error)
        except Exception as error:
            log.exception("a call failed")
            self.result.set_exception(_bug("a call", error))


class Scorer:
    """Takes requests from any thread; computes on its own."""

    def __init__(self, base: LanguageModel, library: Library, *, max_queue: int, threads: int) -> None:
        """Args: base, the backbone; library, of reward models; threads, of torch (0 leaves its own choice)."""
        self.base, self.library = base, library
        self._max_queue, self._threads = max_queue, threads
        self._queue: deque[ScoreRequest] = deque()
        self._running: list[ScoreRequest] = []
        self._away: list[ScoreRequest] = []
        self._calls: list[Call[Any]] = []
        self._calling: list[Call[Any]] = []
        self._changed = threading.Condition()
        self._draining = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)

    @property
    def models(self) -> list[str]:
        """Reward models in memory."""
        return self.library.loaded

    @property
    def alive(self) -> bool:
        """Whether the scorer's thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def submit(self, model: str, samples: Sequence[Sample]) -> ScoreRequest:
        """Queues a request.

        Raises:
            Overloaded: too many wait already.
            Unavailable: the scorer is stopping.
        """
        request = ScoreRequest(model, samples)
        with self._changed:
            waiting = len(self._queue) + len(self._away)
            check_admission("reward", stopping=self._draining, waiting=waiting, limit=self._max_queue)
            self._queue.append(request)
            QUEUE.set(len(self._queue))
            self._changed.notify_all()
        return request

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Does a little work on the scorer's thread, between two batches and before the requests that wait.

        Raises:
            Overloaded, Unavailable: as `submit`.
        """
        call = Call(work)
        with self._changed:
            check_admission("reward", stopping=self._draining, waiting=len(self._calls), limit=self._max_queue)
            self._calls.append(call)
            self._changed.notify_all()
        return call.result

    def drain(self, seconds: float) -> bool:
        """Takes no new requests and waits for those it has. Returns whether they finished in time."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(self._idle, timeout=seconds)

    def stop(self, seconds: float = 2.0) -> None:
        """Ends: requests that are not done answer 503. Args: seconds, to wait for the thread."""
        with self._changed:
            self._draining = self._stopped = True
            for request in (*self._queue, *self._running, *self._away):
                _fail(request.outcomes, Unavailable("reward stopped before the scores were complete; send it again"))
            for call in self._calls:
                _fail(call.result, Unavailable("reward stopped before its scorer had a turn for it; send it again"))
            self._queue.clear()
            self._calls.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _idle(self) -> bool:
        return not (self._queue or self._running or self._away or self._calls or self._calling)

    def _run(self) -> None:
        if self._threads:
            # OpenMP counts threads per calling thread, so the main thread's setting would not do.
            torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue or self._calls) or self._stopped)
                if self._stopped:
                    return
                self._calling, self._calls = self._calls, []
                model = self._queue[0].model if self._queue and not self._calling else None
                self._running = [request for request in self._queue if request.model == model]
                self._queue = deque(request for request in self._queue if request.model != model)
                QUEUE.set(len(self._queue))
            for call in self._calling:
                call.run()
            if model is None:
                with self._changed:
                    self._calling = []
                    self._changed.notify_all()
                continue
            scored = self._score(model, self._running)
            with self._changed:
                requests, self._running = self._running, []
                self._away += requests
            # Called at once where the scores are there already.
            scored.add_done_callback(partial(self._hand_out, model, requests))

    def _score(self, model: str, requests: Sequence[ScoreRequest]) -> Future[list[Outcome]]:
        for request in requests:
            request.started_at = time.monotonic()
        try:
            return self.library.get(model).score([sample for request in requests for sample in request.samples])
        except Exception as error:  # noqa: BLE001
            failed: Future[list[Outcome]] = Future()
            failed.set_exception(error)
            return failed

    def _hand_out(self, model: str, requests: Sequence[ScoreRequest], scored: Future[list[Outcome]]) -> None:
        """Ends requests; on the scorer's thread, or on that which had the last answer."""
        try:
            outcomes = scored.result()
        except ServiceError as error:
            self._end(requests, error)
        except Exception as error:
            log.exception("a batch failed", extra={"reward_model": model})
            self._end(requests, _bug("scoring", error))
        else:
            self._end(requests, outcomes)

    def _end(self, requests: Sequence[ScoreRequest], result: list[Outcome] | ServiceError) -> None:
        with self._changed:
            first = 0
            for request in requests:
                self._away.remove(request)
                if isinstance(result, ServiceError):
                    _fail(request.outcomes, result)
                else:
                    with suppress(InvalidStateError):  # its client left at this very moment
                        request.outcomes.set_result(result[first : first + len(request.samples)])
                first += len(request.samples)
            self._changed.notify_all()


def _bug(what: str, error: Exception) -> InternalError:
    return InternalError(f"{what} failed unexpectedly with {type(error).__name__}; the log has it. This is a bug")


def _fail(promise: Future[Any], error: ServiceError) -> None:
    with suppress(InvalidStateError):
        promise.set_exception(error)
