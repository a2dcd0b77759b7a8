"""The engine: one thread that owns the model and turns queued requests into tokens. No HTTP.

Each turn computes a part of the prompts that wait and one token for every row that runs. Rows join and leave at every
turn; those that share an adapter share a forward pass.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from rlhf.contracts.errors import InternalError, ServiceError, Unavailable
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import LanguageModel
from rlhf.serving.runtime import check_admission
from services.policy.backends.base import ModelFacts
from services.policy.engine import instruments
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.batch import Batch
from services.policy.engine.forward import Forward
from services.policy.engine.prefill import Prefill
from services.policy.engine.prefixes import PrefixLibrary
from services.policy.engine.requests import PLAIN, EngineRequest, Limits, Notify, build_request, no_news
from services.policy.engine.rows import Extras, Row
from services.policy.engine.schedule import reserved_tokens, take_rows

log = logging.getLogger(__name__)


class Engine:
    """Takes requests from any thread; computes on its own."""

    def __init__(
        self, base: LanguageModel, forward: Forward, library: AdapterLibrary, limits: Limits, *, threads: int = 0
    ) -> None:
        """Takes over the model.

        Args:
            base: names, tokenizer and limits of the model.
            forward: computes it.
            library: its adapters.
            limits: of requests and batches.
            threads: of torch; 0 leaves its own choice.
        """
        self.base, self.limits = base, limits
        self._forward, self._library, self._threads = forward, library, threads
        self._queue: deque[EngineRequest] = deque()
        self._running: list[EngineRequest] = []
        self._batches: dict[str | None, Batch] = {}
        self._prefill: tuple[str | None, Prefill] | None = None
        self._prefixes = PrefixLibrary(forward, limits.prefix_tokens)
        self._changed = threading.Condition()
        self._draining = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        library.on_loaded = self._wake

    @property
    def facts(self) -> ModelFacts:
        """What `/info` tells of the model."""
        model = self.base.model
        return ModelFacts(str(model.config.model_type), str(model.dtype).removeprefix("torch."), str(model.device))

    @property
    def adapters(self) -> list[str]:
        """Adapters in memory, the one used last at the end."""
        return self._library.loaded

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def submit(
        self,
        prompts: list[list[int]],
        sampling: SamplingParams,
        adapter: str | None = None,
        extras: Extras = PLAIN,
        progressed: Notify = no_news,
    ) -> EngineRequest:
        """See Backend."""
        request = build_request(self.base, prompts, sampling, adapter, self.limits, extras)
        request.progressed = progressed
        with self._changed:
            waiting = len(self._queue)
            check_admission("policy", stopping=self._draining, waiting=waiting, limit=self.limits.max_queue)
            self._queue.append(request)
            instruments.QUEUE.set(len(self._queue))
            self._changed.notify_all()
        instruments.REQUESTS.inc()
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
                request.fail(Unavailable("policy stopped before the response was complete; send it again"))
            self._queue.clear()
            instruments.QUEUE.set(0)
            self._changed.notify_all()
        self._library.close()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        if self._threads:
            # OpenMP counts threads per calling thread, so the main thread's setting would not do.
            torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._has_work())
                if self._stopped:
                    return
            self._turn()
            with self._changed:
                self._settle()
                self._changed.notify_all()

    def _has_work(self) -> bool:
        """Whether a turn would do anything; with the lock held."""
        if self._batches or self._prefill is not None:
            return True
        return any(
            request.abandoned.is_set() or self._library.state(request.adapter) in ("ready", "failed")
            for request in self._queue
        )

    def _turn(self) -> None:
        """Computes a part of the prompts, then a token for every row unless prompts of the same requests go first."""
        if begun := self._next_prefill():
            self._advance_prefill(*begun)
        if (waiting := self._next_prefill()) and not self._someone_benefits(waiting[1]):
            return
        for adapter, batch in list(self._batches.items()):
            self._step(adapter, batch)

    def _someone_benefits(self, prefill: Prefill) -> bool:
        """Whether a token now brings any request nearer to its answer than computing these prompts first.

        A request whose rows are not all running ends no sooner by it, and larger batches cost less a token.
        """
        computing = {id(row) for row in prefill.rows}
        return any(
            not request.waiting and computing.isdisjoint(id(row) for row in request.rows) for request in self._running
        )

    def _next_prefill(self) -> tuple[str | None, Prefill] | None:
        """Prompts to compute, and their adapter: of the prefill that goes on, or of rows that are let in now."""
        if self._prefill is not None:
            return self._prefill
        with self._changed:
            ready = self._ready_requests()
            if not ready:
                return None
            adapter = ready[0].adapter
            if adapter not in self._batches:
                if not self._library.acquire(adapter):
                    return None
                self._batches[adapter] = Batch(self._forward, self.base.eos_ids)
            running = {key: batch.rows for key, batch in self._batches.items()}
            rows = take_rows(ready, running, self.limits)
            self._note_started(ready)
        if not rows:
            self._drop_if_empty(adapter)
            return None
        self._prefill = (adapter, Prefill(self._forward, rows))
        return self._prefill

    def _ready_requests(self) -> list[EngineRequest]:
        """Requests whose adapter can be computed with, oldest first; with the lock held."""
        for request in [request for request in self._queue if request.abandoned.is_set()]:
            self._queue.remove(request)
            if request not in self._running and not request.outcome.done():
                instruments.observe_failure("cancelled")
        ready: list[EngineRequest] = []
        failed: dict[str | None, ServiceError] = {}
        for request in list(self._queue):
            state = "ready" if request.adapter in self._batches else self._library.state(request.adapter)
            if state == "full":
                # Who came later must not keep adapters in memory that this one waits for.
                break
            if state == "failed":
                error = self._library.take_failure(request.adapter)
                failed.update({request.adapter: error} if error is not None else {})
            if request.adapter in failed:
                self._queue.remove(request)
                request.fail(failed[request.adapter])
            elif state == "ready":
                ready.append(request)
        instruments.QUEUE.set(len(self._queue))
        return ready

    def _note_started(self, requests: Iterable[EngineRequest]) -> None:
        """After rows were taken from these requests' `waiting`; with the lock held."""
        for request in requests:
            if len(request.waiting) < len(request.rows) and request not in self._running:
                request.started_at = time.monotonic()
                self._running.append(request)
            if not request.waiting:
                self._queue.remove(request)
        instruments.QUEUE.set(len(self._queue))

    def _advance_prefill(self, adapter: str | None, prefill: Prefill) -> None:
        """Computes a part of the prompts; rows whose prompts are complete join their batch."""
        try:
            if not all(row.abandoned.is_set() for row in prefill.rows):
                self._library.activate(adapter)
                with _timed("prefill"):
                    if not prefill.begun:
                        instruments.PREFIX_COLUMNS.inc(self._prefixes.begin(adapter, prefill))
                    prefill.advance(self.limits.max_prefill_tokens)
                if not prefill.done:
                    return
                self._prefixes.remember(adapter, prefill)
                self._batches[adapter].join(prefill)
        except Exception as error:
            log.exception("prompts could not be computed", extra={"rows": len(prefill.rows)})
            self._fail_rows(prefill.rows, error)
        self._prefill = None
        self._drop_if_empty(adapter)

    def _step(self, adapter: str | None, batch: Batch) -> None:
        """One token for every row of a batch."""
        if batch.rows:
            try:
                self._library.activate(adapter)
                with _timed("decode"):
                    batch.step()
            except Exception as error:
                log.exception("a batch failed", extra={"rows": len(batch.rows)})
                self._fail_rows(batch.rows, error)
                batch.rows = []
        self._drop_if_empty(adapter)

    def _drop_if_empty(self, adapter: str | None) -> None:
        """Lets go of a batch without rows, and of its adapter."""
        expected = self._prefill is not None and self._prefill[0] == adapter
        if adapter in self._batches and not self._batches[adapter].rows and not expected:
            del self._batches[adapter]
            self._library.release(adapter)

    def _fail_rows(self, rows: list[Row], error: Exception) -> None:
        """Answers the requests of these rows after an error that is not theirs."""
        reason = f"generation failed unexpectedly with {type(error).__name__}; the log has it. This is a bug"
        lost = {id(row) for row in rows}
        for request in self._running:
            if any(id(row) in lost for row in request.rows):
                request.fail(error if isinstance(error, ServiceError) else InternalError(reason))

    def _settle(self) -> None:
        """Answers what is finished and tells the others that there is more; with the lock held."""
        for request in list(self._running):
            if request.settle():
                self._running.remove(request)
        rows = [batch.rows for batch in self._batches.values()]
        instruments.BATCH_ROWS.set(sum(len(own) for own in rows))
        instruments.BATCH_TOKENS.set(reserved_tokens(rows))


@contextmanager
def _timed(method: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    instruments.FORWARDS.labels(method).inc()
    instruments.FORWARD_SECONDS.labels(method).observe(time.monotonic() - started)
