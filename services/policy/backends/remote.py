"""A backend whose model another server computes: one thread with an event loop, one HTTP request a row.

Seeds, stop texts, limits and the order of samples are those of the embedded engine; what the server adds is in the
subclasses. An answer comes whole, so a stream gives each row at once when it is complete.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

from rlhf.artifacts.replaced import replaces_weights
from rlhf.contracts.errors import Conflict, InternalError, ServiceError, Unavailable
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import TextModel
from rlhf.serving.runtime import check_admission
from services.policy.backends.adapters import RemoteAdapters
from services.policy.backends.base import ModelFacts
from services.policy.backends.server import Server
from services.policy.backends.translation import Answered, fill
from services.policy.engine import instruments
from services.policy.engine.requests import PLAIN, EngineRequest, Limits, Notify, build_request, no_news
from services.policy.engine.rows import Extras, Row, sample_seed

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.05
"""How soon a request whose client has gone is hung up on."""
PROBE_TEXT = "The quick brown fox jumps over the lazy"
PROBE_TOKENS = 5
"""So many of the likeliest tokens are compared; TGI gives no more unless told to."""


class RemoteBackend(ABC):
    """See Backend. Subclasses speak one server's dialect."""

    def __init__(
        self, base: TextModel, facts: ModelFacts, limits: Limits, server: Server, *, most_adapters: int
    ) -> None:
        """Connects to nothing yet.

        Args:
            base: the model's name, tokenizer and length.
            facts: what else is known of it.
            limits: of requests; `max_batch_rows` go to the server at once.
            server: nothing was sent to it yet.
            most_adapters: at the server, at once.
        """
        self.base, self.facts, self.limits = base, facts, limits
        self._server = server
        self._eos_ids = frozenset(base.eos_ids)
        self._adapters = RemoteAdapters(self._load, self._unload, most_adapters)
        self._slots = asyncio.Semaphore(limits.max_batch_rows)
        self._requests: dict[EngineRequest, asyncio.Task[None] | None] = {}
        self._changed = threading.Condition()
        self._draining = self._stopped = False
        # Of the thread, there once it has begun.
        self._loop: asyncio.AbstractEventLoop
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="backend", daemon=True)

    @property
    def adapters(self) -> list[str]:
        """Adapters that the server computes with, the one used last at the end."""
        return list(self._adapters.ready)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()
        self._begun.wait()

    @abstractmethod
    def check(self, prompts: list[list[int]], sampling: SamplingParams, extras: Extras) -> None:
        """Refuses what this server cannot do. Raises InvalidInput, which names the backend and the parameter."""

    @abstractmethod
    async def complete(self, row: Row, seed: int, adapter: str | None) -> Answered:
        """Asks the server for one row. Args: row, empty yet; seed, of this sample; adapter, one that is ready."""

    @abstractmethod
    async def admit(self, request: EngineRequest) -> None:
        """Before any row of a request is asked for. Raises ServiceError when the server would misread it."""

    @abstractmethod
    async def load_adapter(self, ref: str) -> None:
        """Makes the server compute with `job@version`. Nothing to do where it does so from its start."""

    @abstractmethod
    async def unload_adapter(self, ref: str) -> None:
        """The counterpart of `load_adapter`."""

    async def is_untrained(self, ref: str) -> bool:
        """Whether an adapter is known to change nothing, and may answer as the base model does."""
        return False

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
        self.check(prompts, sampling, extras)
        request.progressed = progressed
        with self._changed:
            waiting = self._waiting()
            stopping = self._draining or not self._begun.is_set()
            check_admission("policy", stopping=stopping, waiting=waiting, limit=self.limits.max_queue)
            self._requests[request] = None
            instruments.QUEUE.set(waiting + 1)
            self._loop.call_soon_threadsafe(self._begin, request)
        instruments.REQUESTS.inc()
        return request

    def drain(self, seconds: float) -> bool:
        """See Backend."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not self._requests, timeout=seconds)

    def stop(self, seconds: float = 2.0) -> None:
        """See Backend."""
        with self._changed:
            self._draining = self._stopped = True
            for request in self._requests:
                request.fail(Unavailable("policy stopped before the response was complete; send it again"))
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _waiting(self) -> int:
        """Requests of which nothing was asked yet; with the lock held."""
        return sum(request.started_at is None for request in self._requests)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun.set()
        # A client that leaves, and a stop, are told by other threads: looked at here, so that no thread is kept for it.
        while not self._stopped:
            with self._changed:
                gone = [task for request, task in self._requests.items() if task and request.abandoned.is_set()]
            for task in gone:
                task.cancel()
            await asyncio.sleep(LOOK_SECONDS)
        tasks = [task for task in self._requests.values() if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()

    def _begin(self, request: EngineRequest) -> None:
        with self._changed:
            if request in self._requests:
                self._requests[request] = asyncio.get_running_loop().create_task(self._serve(request))

    async def _serve(self, request: EngineRequest) -> None:
        """One request to its end, whatever that is."""
        try:
            async with self._adapters.held(request.adapter):
                await self.admit(request)
                await self._generate(request)
        except ServiceError as error:
            request.fail(error)
        except asyncio.CancelledError:
            # Nobody waits: counted as such, unless it was answered meanwhile.
            request.settle()
        except Exception as error:
            log.exception("a request failed unexpectedly")
            request.fail(InternalError(f"unexpected {type(error).__name__}; this is a bug, the log has it"))
        finally:
            with self._changed:
                del self._requests[request]
                instruments.QUEUE.set(self._waiting())
                self._changed.notify_all()

    async def _generate(self, request: EngineRequest) -> None:
        rows = [asyncio.create_task(self._fill(request, row)) for row in request.rows]
        try:
            await asyncio.gather(*rows)
        finally:
            # Of one that fails, the others are hung up on.
            for row in rows:
                row.cancel()

    async def _fill(self, request: EngineRequest, row: Row) -> None:
        async with self._slots:
            if request.started_at is None:
                request.started_at = time.monotonic()
            instruments.BATCH_ROWS.inc()
            try:
                seed = sample_seed(request.seed, row.prompt_index, row.sample_index)
                fill(row, await self.complete(row, seed, request.adapter), self._eos_ids)
            finally:
                instruments.BATCH_ROWS.dec()
        request.settle()

    async def _load(self, ref: str) -> None:
        """Raises Conflict too when the server answers with the adapter as without it, and nobody would notice."""
        await self.load_adapter(ref)
        # A beginning that no server has kept from before: what is computed anew rounds otherwise.
        text = f"{secrets.randbelow(10**8):08} {PROBE_TEXT}"
        before, adapted, after = [await self._probe(text, adapter) for adapter in (None, ref, None)]
        if adapted in (before, after) and not await self.is_untrained(ref):
            await self.unload_adapter(ref)
            raise Conflict(
                f"{self._server.address.backend} at {self._server.address.url} answers with adapter {ref} exactly as "
                f"without it (log-probabilities of {PROBE_TOKENS} tokens after {text!r}): the names of its "
                "modules may not match the model's, or the server does not know it by RLHF_BACKEND_ADAPTER_NAME"
            )
        log.info("adapter loaded", extra={"adapter": ref})

    async def _unload(self, ref: str) -> None:
        await self.unload_adapter(ref)
        log.info("adapter unloaded", extra={"adapter": ref})

    async def _probe(self, text: str, adapter: str | None) -> list[tuple[int, float]]:
        """The likeliest tokens after a text, with their log-probabilities."""
        ids = list(self.base.tokenizer(text)["input_ids"])
        sampling = SamplingParams(max_new_tokens=1, temperature=0.0, seed=0)
        row = build_request(self.base, [ids], sampling, None, self.limits, Extras(top_logprobs=PROBE_TOKENS)).rows[0]
        fill(row, await self.complete(row, 0, adapter), self._eos_ids)
        return row.top_logprobs[0]


def name_at_server(pattern: str, ref: str) -> str:
    """What the server calls an adapter. Args: pattern, with `{job}` and `{version}`; ref, `job@version`."""
    job, _, version = ref.partition("@")
    return pattern.replace("{job}", job).replace("{version}", version)


def refuse_replaced(backend: str, ref: str, folder: Path) -> None:
    """Raises Conflict when a version holds whole weights. Args: folder, of the version in the artifact store."""
    if replaces_weights(folder):
        raise Conflict(
            f"{ref} holds whole weights (full fine-tuning), which the backend {backend} cannot put in the place of its "
            f"model's: serve it with RLHF_BACKEND=embedded, train an adapter (lora), or start {backend} on the model "
            "folder that the job leaves at its end"
        )
