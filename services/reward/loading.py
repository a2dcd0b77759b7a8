"""Makes the scorer from the settings: backbone, reward models, limits."""

from __future__ import annotations

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.loading import load_language_model
from services.reward.library import Library
from services.reward.scorer import Scorer
from services.reward.settings import RewardSettings


def load_scorer(settings: RewardSettings) -> Scorer:
    """Loads the backbone and makes a scorer that is not started yet.

    Raises:
        OSError, ValueError: the backbone cannot be loaded; says why.
    """
    base = load_language_model(settings.model, device=settings.device)
    library = Library(
        ArtifactStore(settings.store), base, kept=settings.bundles_kept, token_budget=settings.max_batch_tokens
    )
    return Scorer(base, library, max_queue=settings.max_queue, threads=settings.threads)
