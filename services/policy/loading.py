"""Makes the engine from the settings: model, layers, adapters, limits."""

from __future__ import annotations

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.loading import load_language_model
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.decoding import check_cache
from services.policy.engine.engine import Engine
from services.policy.engine.linears import install_linears
from services.policy.engine.requests import Limits
from services.policy.settings import PolicySettings


def load_engine(settings: PolicySettings) -> Engine:
    """Loads the model and makes an engine that is not started yet.

    Raises:
        OSError, ValueError: the model cannot be loaded or served; says why.
    """
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
    return Engine(base, library, limits, threads=settings.threads)
