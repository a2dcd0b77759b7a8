"""Makes the scorer from the settings: backbone, reward models, limits."""

from __future__ import annotations

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.loading import load_language_model
from services.reward.library import BundleLibrary
from services.reward.scorer import Scorer
from services.reward.settings import RewardSettings


def load_scorer(settings: RewardSettings) -> Scorer:
    """Loads the backbone and makes a scorer that is not started yet.

    Raises:
        OSError, ValueError: the backbone cannot be loaded; says why.
    """
    base = load_language_model(settings.model, device=settings.device)
    library = BundleLibrary(ArtifactStore(settings.store), base, settings.bundles_kept)
    return Scorer(
        base,
        library,
        token_budget=settings.max_batch_tokens,
        max_queue=settings.max_queue,
        threads=settings.threads,
    )
