"""Makes the engine from the settings: model, layers, adapters, limits."""

from __future__ import annotations

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.loading import load_language_model
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.engine import Engine
from services.policy.engine.forward import build_forward
from services.policy.engine.requests import Limits
from services.policy.settings import PolicySettings


def load_engine(settings: PolicySettings) -> Engine:
    """Loads the model and makes an engine that is not started yet.

    Raises:
        OSError, ValueError: the model cannot be loaded or served; says why.
    """
    base = load_language_model(settings.model, device=settings.device)
    forward, places = build_forward(base, packed=settings.packed_weights)
    library = AdapterLibrary(ArtifactStore(settings.store), places, settings.adapter_memory_mib * 2**20)
    limits = Limits(
        max_batch_rows=settings.max_batch_rows,
        max_batch_tokens=settings.max_batch_tokens,
        max_prefill_tokens=settings.max_prefill_tokens,
        max_request_rows=settings.max_request_rows,
        max_queue=settings.max_queue,
    )
    return Engine(base, forward, library, limits, threads=settings.threads)
