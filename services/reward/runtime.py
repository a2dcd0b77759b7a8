"""What the process owns: the scorer, and how far it is from working. Routes ask it; it knows no HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Unavailable
from rlhf.lm.loading import load_language_model
from services.reward.library import BundleLibrary
from services.reward.scorer import Scorer
from services.reward.settings import RewardSettings

log = logging.getLogger(__name__)


class Runtime:
    """Loads the backbone in a thread, so that the process answers meanwhile, and stops it in order."""

    def __init__(self, settings: RewardSettings) -> None:
        """Args: settings, of the process."""
        self._settings = settings
        self._scorer: Scorer | None = None
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
        return None if self._scorer is not None else f"loading {self._settings.model}"

    def scorer(self) -> Scorer:
        """The scorer. Raises Unavailable when there is none yet or it is stopping."""
        reason = self.obstacle()
        if reason is not None or self._scorer is None:
            raise Unavailable(f"reward is not ready: {reason}; send the request again soon", retry_after=2)
        return self._scorer

    def drain(self) -> None:
        """Refuses new requests and waits for running ones, as long as the settings allow. Blocks."""
        self.draining = True
        if self._scorer is not None and not self._scorer.drain(self._settings.drain_seconds):
            log.info("requests were still running when the time to drain was over")
            self._scorer.stop(1.0)

    def stop(self) -> bool:
        """Ends the scorer. Returns whether its thread is gone."""
        self.draining = True
        if self._scorer is None:
            return False
        self._scorer.stop(1.0)
        return not self._scorer.alive

    def _load(self) -> None:
        settings = self._settings
        try:
            base = load_language_model(settings.model, device=settings.device)
            library = BundleLibrary(ArtifactStore(settings.store), base, settings.bundles_kept)
            scorer = Scorer(
                base,
                library,
                token_budget=settings.max_batch_tokens,
                max_queue=settings.max_queue,
                threads=settings.threads,
            )
        except Exception as error:
            log.exception("the backbone could not be loaded", extra={"model": settings.model})
            self.failure = f"the backbone {settings.model} could not be loaded: {error}"
            self.on_failure()
            return
        scorer.start()
        self._scorer = scorer
        log.info("ready", extra={"model": base.name})
