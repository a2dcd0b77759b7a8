"""The scorer: one thread that owns the backbone and scores queued requests, those for one reward model together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from rlhf.contracts.errors import InternalError, InvalidInput, ScoringFailed, ServiceError, Unavailable
from rlhf.contracts.reward import SampleFailure
from rlhf.lm.exchanges import Exchange, encode_exchange
from rlhf.lm.loading import LanguageModel
from rlhf.serving.runtime import check_admission
from services.reward.instruments import BATCH_SAMPLES, QUEUE
from services.reward.library import BundleLibrary
from services.reward.texts import Sample

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class MemberScores:
    """One sample's K standardised scores, all finite, and the tokens that were read for them."""

    members: list[float]
    truncated: bool
    tokens: int


Outcome = MemberScores | SampleFailure


@dataclass
class ScoreRequest:
    """Samples for one reward model, and the promise of an outcome for each."""

    model: str
    samples: Sequence[Sample]
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    outcomes: Future[list[Outcome]] = field(default_factory=Future)


@dataclass
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
            self.result.set_exception(InternalError(_unexpected(error)))


class Scorer:
    """Takes requests from any thread; computes on its own."""

    def __init__(
        self, base: LanguageModel, library: BundleLibrary, *, token_budget: int, max_queue: int, threads: int
    ) -> None:
        """Args: token_budget, padded tokens of a forward pass; threads, of torch (0 leaves its own choice)."""
        self.base, self.library = base, library
        self._token_budget, self._max_queue, self._threads = token_budget, max_queue, threads
        self._queue: deque[ScoreRequest] = deque()
        self._running: list[ScoreRequest] = []
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
            check_admission("reward", stopping=self._draining, waiting=len(self._queue), limit=self._max_queue)
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
            for request in (*self._queue, *self._running):
                _fail(request.outcomes, Unavailable("reward stopped before the scores were complete; send it again"))
            for call in self._calls:
                _fail(call.result, Unavailable("reward stopped before its scorer had a turn for it; send it again"))
            self._queue.clear()
            self._calls.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _idle(self) -> bool:
        return not (self._queue or self._running or self._calls or self._calling)

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
            try:
                for call in self._calling:
                    call.run()
                if model is not None:
                    self._compute(model, self._running)
            finally:
                with self._changed:
                    self._running, self._calling = [], []
                    self._changed.notify_all()

    def _compute(self, model: str, requests: list[ScoreRequest]) -> None:
        for request in requests:
            request.started_at = time.monotonic()
        try:
            samples = [sample for request in requests for sample in request.samples]
            outcomes = self._score(model, samples)
        except ServiceError as error:
            for request in requests:
                _fail(request.outcomes, error)
        except Exception as error:
            log.exception("a batch failed", extra={"reward_model": model})
            for request in requests:
                _fail(request.outcomes, InternalError(_unexpected(error)))
        else:
            for request in requests:
                own, outcomes = outcomes[: len(request.samples)], outcomes[len(request.samples) :]
                if not request.outcomes.done():
                    request.outcomes.set_result(own)

    def _score(self, model: str, samples: Sequence[Sample]) -> list[Outcome]:
        ensemble = self.library.get(model)
        outcomes: dict[int, Outcome] = {}
        exchanges: dict[int, Exchange] = {}
        for index, sample in enumerate(samples):
            try:
                exchanges[index] = encode_exchange(
                    self.base.tokenizer, sample.prompt, sample.response, max_length=ensemble.shape.max_length
                )
            except (ScoringFailed, InvalidInput) as error:
                outcomes[index] = SampleFailure(error=error.message, error_type=error.error_type)
        if exchanges:
            BATCH_SAMPLES.observe(len(exchanges))
            scores = ensemble.score(list(exchanges.values()), token_budget=self._token_budget).tolist()
            for (index, exchange), members in zip(exchanges.items(), scores, strict=True):
                outcomes[index] = _outcome(members, exchange, model)
        return [outcomes[index] for index in range(len(samples))]


def _outcome(members: list[float], exchange: Exchange, model: str) -> Outcome:
    broken = [index for index, score in enumerate(members) if not math.isfinite(score)]
    if broken:
        return SampleFailure(
            error=f"member {broken[0]} of {model} gave {members[broken[0]]}, which is no score; "
            "its weights are unsound: train it again",
            error_type="scoring",
        )
    return MemberScores(members, exchange.truncated, exchange.tokens)


def _unexpected(error: Exception) -> str:
    return f"scoring failed unexpectedly with {type(error).__name__}; the log has it. This is a bug"


def _fail(promise: Future[Any], error: ServiceError) -> None:
    if not promise.done():
        promise.set_exception(error)
