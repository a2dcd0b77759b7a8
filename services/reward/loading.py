"""Makes the scorer from the settings: backbone, reward models, limits."""

from __future__ import annotations

from rlhf.artifacts.store import SERVING_PATIENCE_S, open_store
from rlhf.lm.loading import load_language_model
from services.reward.library import Library
from services.reward.panels.loading import load_panels
from services.reward.scorer import Scorer
from services.reward.settings import RewardSettings


def load_scorer(settings: RewardSettings) -> Scorer:
    """Loads the backbone and makes a scorer that is not started yet.

    Raises:
        OSError, ValueError: the backbone or a panel cannot be loaded, or the store's remote copy is none; says why.
    """
    base = load_language_model(settings.model, device=settings.device, dtype=settings.dtype)
    store = open_store(settings.store, settings.store_remote, patience_s=SERVING_PATIENCE_S)
    library = Library(
        store,
        base,
        kept=settings.bundles_kept,
        token_budget=settings.max_batch_tokens,
        panels=load_panels(settings, store, base),
    )
    return Scorer(base, library, max_queue=settings.max_queue, threads=settings.threads)
