"""What the process owns: the engine, and how far it is from working. Routes ask it; it knows no HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Unavailable
from rlhf.lm.loading import load_language_model
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.decoding import check_cache
from services.policy.engine.engine import Engine
from services.policy.engine.linears import install_linears
from services.policy.engine.requests import Limits
from services.policy.settings import PolicySettings

log = logging.getLogger(__name__)


class Runtime:
    """Loads the model in a thread, so that the process answers meanwhile, and stops it in order."""

    def __init__(self, settings: PolicySettings) -> None:
        """Args: settings, of the process."""
        self._settings = settings
        self._engine: Engine | None = None
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
        return None if self._engine is not None else f"loading {self._settings.model}"

    def engine(self) -> Engine:
        """The engine. Raises Unavailable when there is none yet or it is stopping."""
        reason = self.obstacle()
        if reason is not None or self._engine is None:
            raise Unavailable(f"policy is not ready: {reason}; send the request again soon", retry_after=2)
        return self._engine

    def drain(self) -> None:
        """Refuses new requests and waits for running ones, as long as the settings allow. Blocks."""
        self.draining = True
        if self._engine is not None and not self._engine.drain(self._settings.drain_seconds):
            log.info("requests were still running when the time to drain was over")
            self._engine.stop(1.0)

    def stop(self) -> bool:
        """Ends the engine. Returns whether its thread is gone, or never was there."""
        self.draining = True
        if self._engine is None:
            return False
        self._engine.stop(1.0)
        return not self._engine.alive

    def _load(self) -> None:
        settings = self._settings
        try:
            base = load_language_model(settings.model, device=settings.device)
            linears = install_linears(base.model, packed=settings.packed_weights)
            check_cache(base.model)
            library = AdapterLibrary(ArtifactStore(settings.store), linears, settings.adapters_kept)
            limits = Limits(
                max_batch_rows=settings.max_batch_rows,
                max_batch_tokens=settings.max_batch_tokens,
                max_request_rows=settings.max_request_rows,
                max_queue=settings.max_queue,
            )
            engine = Engine(base, library, limits, threads=settings.threads)
        except Exception as error:
            log.exception("the model could not be loaded", extra={"model": settings.model})
            self.failure = f"the model {settings.model} could not be loaded: {error}"
            self.on_failure()
            return
        engine.start()
        self._engine = engine
        log.info("ready", extra={"model": base.name, "max_positions": base.max_positions})
