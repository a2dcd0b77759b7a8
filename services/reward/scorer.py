"""The scorer: one thread that owns the backbone and scores queued requests, those for one reward model together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class MemberScores:
    """One sample's K standardised scores, all finite, its novelty, and the tokens that were read for them."""

    members: list[float]
    novelty: float
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


class Scorer:
    """Takes requests from any thread; computes on its own."""

    def __init__(
        self, base: LanguageModel, library: BundleLibrary, *, token_budget: int, max_queue: int, threads: int
    ) -> None:
        """Args: token_budget, padded tokens of a forward pass; threads, of torch (0 leaves its own choice)."""
        self.base, self._library = base, library
        self._token_budget, self._max_queue, self._threads = token_budget, max_queue, threads
        self._queue: deque[ScoreRequest] = deque()
        self._running: list[ScoreRequest] = []
        self._changed = threading.Condition()
        self._draining = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)

    @property
    def models(self) -> list[str]:
        """Reward models in memory."""
        return self._library.loaded

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

    def drain(self, seconds: float) -> bool:
        """Takes no new requests and waits for those it has. Returns whether they finished in time."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not self._queue and not self._running, timeout=seconds)

    def stop(self, seconds: float = 2.0) -> None:
        """Ends: requests that are not done answer 503. Args: seconds, to wait for the thread."""
        with self._changed:
            self._draining = self._stopped = True
            for request in (*self._queue, *self._running):
                _fail(request, Unavailable("reward stopped before the scores were complete; send it again"))
            self._queue.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        if self._threads:
            # OpenMP counts threads per calling thread, so the main thread's setting would not do.
            torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue) or self._stopped)
                if self._stopped:
                    return
                model = self._queue[0].model
                self._running = [request for request in self._queue if request.model == model]
                self._queue = deque(request for request in self._queue if request.model != model)
                QUEUE.set(len(self._queue))
            try:
                self._compute(model, self._running)
            finally:
                with self._changed:
                    self._running = []
                    self._changed.notify_all()

    def _compute(self, model: str, requests: list[ScoreRequest]) -> None:
        for request in requests:
            request.started_at = time.monotonic()
        try:
            samples = [sample for request in requests for sample in request.samples]
            outcomes = self._score(model, samples)
        except ServiceError as error:
            for request in requests:
                _fail(request, error)
        except Exception as error:
            log.exception("a batch failed", extra={"reward_model": model})
            reason = f"scoring failed unexpectedly with {type(error).__name__}; the log has it. This is a bug"
            for request in requests:
                _fail(request, InternalError(reason))
        else:
            for request in requests:
                own, outcomes = outcomes[: len(request.samples)], outcomes[len(request.samples) :]
                if not request.outcomes.done():
                    request.outcomes.set_result(own)

    def _score(self, model: str, samples: Sequence[Sample]) -> list[Outcome]:
        ensemble = self._library.get(model)
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
            told = ensemble.assess(list(exchanges.values()), token_budget=self._token_budget)
            rows = zip(exchanges.items(), told.scores.tolist(), told.novelty.tolist(), strict=True)
            for (index, exchange), members, novelty in rows:
                outcomes[index] = _outcome(members, novelty, exchange, model)
        return [outcomes[index] for index in range(len(samples))]


def _outcome(members: list[float], novelty: float, exchange: Exchange, model: str) -> Outcome:
    broken = [index for index, score in enumerate(members) if not math.isfinite(score)]
    if broken:
        return SampleFailure(
            error=f"member {broken[0]} of {model} gave {members[broken[0]]}, which is no score; "
            "its weights are unsound: train it again",
            error_type="scoring",
        )
    return MemberScores(members, novelty, exchange.truncated, exchange.tokens)


def _fail(request: ScoreRequest, error: ServiceError) -> None:
    if not request.outcomes.done():
        request.outcomes.set_exception(error)
