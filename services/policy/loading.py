"""Makes the backend that the settings name: the embedded engine with model, layers and adapters, or a remote one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Unavailable
from rlhf.lm.loading import load_language_model, load_text_model
from services.policy.backends import tgi, vllm
from services.policy.backends.base import Backend
from services.policy.backends.server import Address, Server
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.engine import Engine
from services.policy.engine.forward import build_forward
from services.policy.engine.requests import Limits
from services.policy.settings import PolicySettings

log = logging.getLogger(__name__)
T = TypeVar("T")
ASK_AGAIN_SECONDS = 1.0


def load_backend(settings: PolicySettings, store: ArtifactStore) -> Backend:
    """Makes a backend that is not started yet. Args: settings; store, of published adapters.

    Raises:
        OSError, ValueError: the model cannot be loaded or served; says why.
        ServiceError: the server behind a remote backend cannot be reached, or is of another kind.
    """
    if settings.backend == "embedded":
        return load_engine(settings, store)
    return _load_tgi(settings, store) if settings.backend == "tgi" else _load_vllm(settings, store)


def load_engine(settings: PolicySettings, store: ArtifactStore) -> Engine:
    """Loads the model and makes an engine that is not started yet. Args: settings; store, of published adapters.

    Raises:
        OSError, ValueError: the model cannot be loaded or served; says why.
    """
    base = load_language_model(settings.model, device=settings.device, dtype=settings.dtype)
    forward, places = build_forward(base, packed=settings.packed_weights)
    library = AdapterLibrary(store, places, settings.adapter_memory_mib * 2**20)
    return Engine(base, forward, library, _limits(settings), threads=settings.threads)


def _load_tgi(settings: PolicySettings, store: ArtifactStore) -> tgi.TgiBackend:
    base, model_type = load_text_model(settings.model)
    address = _address(settings)
    facts, longest = _ask(address, settings.backend_start_s, lambda server: tgi.ask_facts(server, model_type))
    base = replace(base, max_positions=longest)
    return tgi.TgiBackend(
        base,
        facts,
        _limits(settings),
        Server(address),
        store=store,
        adapter_name=settings.backend_adapter_name,
    )


def _load_vllm(settings: PolicySettings, store: ArtifactStore) -> vllm.VllmBackend:
    base, model_type = load_text_model(settings.model)
    address = _address(settings)
    facts, longest, model = _ask(
        address, settings.backend_start_s, lambda server: vllm.ask_facts(server, base, model_type)
    )
    return vllm.VllmBackend(
        replace(base, max_positions=longest),
        facts,
        _limits(settings),
        Server(address),
        model=model,
        store=store,
        store_there=settings.backend_store,
        adapter_name=settings.backend_adapter_name,
        most_adapters=settings.backend_max_adapters,
    )


def _limits(settings: PolicySettings) -> Limits:
    return Limits(
        max_batch_rows=settings.max_batch_rows,
        max_batch_tokens=settings.max_batch_tokens,
        max_prefill_tokens=settings.max_prefill_tokens,
        max_request_rows=settings.max_request_rows,
        max_queue=settings.max_queue,
        prefix_tokens=settings.prefix_tokens,
    )


def _address(settings: PolicySettings) -> Address:
    key = settings.backend_api_key
    return Address(
        backend=settings.backend,
        url=(settings.backend_url or "").rstrip("/"),
        api_key=None if key is None else key.get_secret_value(),
        timeout_s=settings.backend_timeout_s,
    )


def _ask(address: Address, patience: float, question: Callable[[Server], Awaitable[T]]) -> T:
    """Asks the server until it is there. Args: patience, seconds."""

    async def ask() -> T:
        server = Server(address)
        until = time.monotonic() + patience
        try:
            while True:
                try:
                    return await question(server)
                except Unavailable as error:
                    if time.monotonic() > until:
                        raise
                    log.info("waiting for the backend's server", extra={"error": error.message})
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        finally:
            await server.close()

    return asyncio.run(ask())
