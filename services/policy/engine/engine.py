"""The engine: one thread that owns the model and turns queued requests into batches. No HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from rlhf.contracts.errors import InternalError, Overloaded, ServiceError, Unavailable
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import LanguageModel
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.decoding import decode
from services.policy.engine.instruments import BATCH_ROWS, PROMPT_TOKENS, QUEUE, TOKENS
from services.policy.engine.requests import EngineRequest, Limits, build_request
from services.policy.engine.rows import Extras, Row

log = logging.getLogger(__name__)


class Engine:
    """Takes requests from any thread; computes on its own."""

    def __init__(self, base: LanguageModel, library: AdapterLibrary, limits: Limits, *, threads: int = 0) -> None:
        """Args: base, the model; library, its adapters; limits; threads, of torch (0 leaves its own choice)."""
        self.base, self.limits, self._library, self._threads = base, limits, library, threads
        self._queue: deque[EngineRequest] = deque()
        self._running: list[EngineRequest] = []
        self._changed = threading.Condition()
        self._draining = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def adapters(self) -> list[str]:
        """Adapters in memory."""
        return list(self._library.loaded)

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
        extras: Extras = Extras(),  # noqa: B008 - frozen
        progressed: Callable[[], None] = lambda: None,
    ) -> EngineRequest:
        """Queues a request; its `outcome` is resolved later.

        Args:
            prompts: token ids of each prompt.
            sampling: for all of them.
            adapter: `job@version`, or None for the base model.
            extras: what to report besides tokens.
            progressed: see EngineRequest.

        Raises:
            InvalidInput, TooLarge: the request cannot be served.
            Overloaded: too many wait already.
            Unavailable: the engine is stopping.
        """
        request = build_request(self.base, prompts, sampling, adapter, self.limits, extras)
        request.progressed = progressed
        with self._changed:
            if self._draining:
                raise Unavailable("policy is stopping and takes no new requests; send it again soon", retry_after=2)
            if len(self._queue) >= self.limits.max_queue:
                raise Overloaded(
                    f"{len(self._queue)} requests are waiting, the limit is {self.limits.max_queue}; send it again "
                    "later, or raise RLHF_MAX_QUEUE",
                    retry_after=2,
                )
            self._queue.append(request)
            QUEUE.set(len(self._queue))
            self._changed.notify_all()
        PROMPT_TOKENS.inc(sum(len(ids) for ids in prompts))
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
            QUEUE.set(0)
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
                rows = self._take()
                QUEUE.set(len(self._queue))
            try:
                if rows:
                    self._compute(self._running, rows)
            finally:
                with self._changed:
                    self._running = []
                    self._changed.notify_all()

    def _take(self) -> list[Row]:
        """The next batch: the oldest request's rows, and whole requests for the same adapter that fit beside them."""
        gone = [request for request in self._queue if request.abandoned.is_set()]
        for request in gone:
            self._queue.remove(request)
        if not self._queue:
            return []
        oldest = self._queue[0]
        rows: list[Row] = []
        while oldest.waiting and self._fits([*rows[-1:], oldest.waiting[0]], len(rows) + 1):
            rows.append(oldest.waiting.popleft())
        self._running = [oldest]
        for request in list(self._queue)[1:]:
            together = [*rows, *request.waiting]
            if not oldest.waiting and request.adapter == oldest.adapter and self._fits(together, len(together)):
                rows, self._running = together, [*self._running, request]
                request.waiting.clear()
        for request in self._running:
            request.started_at = request.started_at or time.monotonic()
            if not request.waiting:
                self._queue.remove(request)
        return rows

    def _fits(self, rows: list[Row], count: int) -> bool:
        """Whether `count` rows, of which these are the largest, may run together. One row always may."""
        width = max(len(row.prompt_ids) for row in rows) + max(row.sampling.max_new_tokens for row in rows)
        small = count <= self.limits.max_batch_rows and count * width <= self.limits.max_batch_tokens
        return count == 1 or (small and width <= self.base.max_positions)

    def _compute(self, requests: list[EngineRequest], rows: list[Row]) -> None:
        try:
            self._library.activate(requests[0].adapter)
            BATCH_ROWS.observe(len(rows))
            decode(self.base, rows, lambda: [request.progressed() for request in requests])
            TOKENS.inc(sum(len(row.token_ids) for row in rows))
            for request in requests:
                request.resolve()
        except ServiceError as error:
            for request in requests:
                request.fail(error)
        except Exception as error:
            log.exception("a batch failed", extra={"rows": len(rows)})
            reason = f"generation failed unexpectedly with {type(error).__name__}; the log has it. This is a bug"
            for request in requests:
                request.fail(InternalError(reason))
