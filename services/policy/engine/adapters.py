"""Adapters of the artifact store, merged into the layers they change. The base weights are never written to.

A thread of its own loads, verifies and merges an adapter that is named for the first time, while the engine goes on
with what it has; switching between adapters in memory exchanges pointers. A merged layer costs nothing afterwards,
while unmerged factors cost two extra products a layer and step. Replaced weights are merged by taking the base model's
place.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import InternalError, ServiceError
from services.policy.engine.adapter_files import Update, read_adapter
from services.policy.engine.instruments import ADAPTER_BYTES, ADAPTERS
from services.policy.engine.linears import Exchangeable, ExchangeableLinear, LowRank, Places, Replacement, Weights

log = logging.getLogger(__name__)
State = Literal["ready", "failed", "loading", "full"]


@dataclass
class Merged:
    """An adapter in memory: the weights to exchange, and how many batches compute with it."""

    weights: list[tuple[Exchangeable, Weights]]
    size: int
    uses: int = 0


class AdapterLibrary:
    """Decides with which weights the model computes. The engine's thread calls it; others only read `loaded`."""

    def __init__(self, store: ArtifactStore, places: Places, max_bytes: int) -> None:
        """Args: store, of published adapters; places, of the model's weights; max_bytes, of merged weights."""
        self._store, self._places, self._max_bytes = store, places, max_bytes
        self._merged: OrderedDict[str, Merged] = OrderedDict()
        self._failed: dict[str, ServiceError] = {}
        self._loading: set[str] = set()
        self._lock = threading.Lock()
        self._loader = ThreadPoolExecutor(1, "adapter-loader", initializer=torch.set_num_threads, initargs=(1,))
        self._active: list[tuple[Exchangeable, Weights]] = []
        self._active_ref: str | None = None
        self.on_loaded: Callable[[], None] = lambda: None

    @property
    def loaded(self) -> list[str]:
        """Adapters in memory, the one used last at the end."""
        with self._lock:
            return list(self._merged)

    def state(self, ref: str | None) -> State:
        """Whether a batch can compute with this adapter; begins to load it where there is room for it.

        Returns:
            `ready` to be acquired; `failed`, see `take_failure`; `loading`; or `full` when the memory is taken by
            adapters in use, one of which must be released first.
        """
        if ref is None:
            return "ready"
        with self._lock:
            if ref in self._merged:
                return "ready"
            if ref in self._failed:
                return "failed"
            if ref not in self._loading:
                used = sum(merged.size for merged in self._merged.values() if merged.uses)
                # Its size is not known before it is read; adapters of one model are mostly alike.
                expected = max((merged.size for merged in self._merged.values()), default=0)
                if used and used + expected > self._max_bytes:
                    return "full"
                self._loading.add(ref)
                self._loader.submit(self._load, ref)
            return "loading"

    def take_failure(self, ref: str | None) -> ServiceError | None:
        """Why the adapter could not be loaded, once: who names it again has it tried again."""
        with self._lock:
            return None if ref is None else self._failed.pop(ref, None)

    def acquire(self, ref: str | None) -> bool:
        """A batch computes with this adapter, which stays in memory until released. False: it is gone by now."""
        if ref is not None:
            with self._lock:
                if ref not in self._merged:
                    return False
                self._merged[ref].uses += 1
                self._merged.move_to_end(ref)
        return True

    def release(self, ref: str | None) -> None:
        """The counterpart of `acquire`."""
        if ref is not None:
            with self._lock:
                self._merged[ref].uses -= 1

    def activate(self, ref: str | None) -> None:
        """The model computes with this acquired adapter from now on; None is the base model, exactly."""
        if ref == self._active_ref:
            return
        for layer, _ in self._active:
            layer.exchange(None)
        with self._lock:
            self._active = [] if ref is None else self._merged[ref].weights
        for layer, weights in self._active:
            layer.exchange(weights)
        self._active_ref = ref

    def close(self) -> None:
        """Ends the loader's thread."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _load(self, ref: str) -> None:
        """In the loader's thread."""
        failure: ServiceError | None = None
        try:
            update = read_adapter(self._store, ref, self._places)
            merged = self._merge(update)
            log.info("adapter loaded", extra={"adapter": ref, "layers": len(merged.weights), "bytes": merged.size})
        except ServiceError as error:
            failure = error
        except Exception as error:
            log.exception("an adapter could not be loaded", extra={"adapter": ref})
            failure = InternalError(f"adapter {ref} could not be loaded: {type(error).__name__}; the log has it")
        with self._lock:
            self._loading.discard(ref)
            if failure is None:
                self._merged[ref] = merged
            else:
                self._failed[ref] = failure
            self._measure()
        self.on_loaded()

    def _merge(self, update: Update) -> Merged:
        """Makes room first, so that what goes and what comes are never in memory together."""
        by_linear: dict[ExchangeableLinear, dict[int, LowRank | Replacement]] = {}
        for name, each in update.linears.items():
            place = self._places.linears[name]
            by_linear.setdefault(place.linear, {})[place.first] = each
        vectors = {self._places.vectors[name]: value for name, value in update.vectors.items()}
        size = sum(linear.bytes for linear in by_linear) + sum(value.nbytes for value in vectors.values())
        self._make_room(size)
        weights: list[tuple[Exchangeable, Weights]] = [
            (vector, Weights(value.to(vector.parameter.dtype, copy=True))) for vector, value in vectors.items()
        ]
        with torch.inference_mode():
            weights += [(linear, linear.adapted(parts)) for linear, parts in by_linear.items()]
        return Merged(weights, size)

    def _make_room(self, size: int) -> None:
        """Lets go of what no batch uses, the one used longest ago first, until so many bytes more are allowed."""
        with self._lock:
            unused = [ref for ref, merged in self._merged.items() if merged.uses == 0 and ref != self._active_ref]
            for ref in unused:
                if sum(merged.size for merged in self._merged.values()) + size <= self._max_bytes:
                    break
                del self._merged[ref]
            self._measure()

    def _measure(self) -> None:
        ADAPTERS.set(len(self._merged))
        ADAPTER_BYTES.set(sum(merged.size for merged in self._merged.values()))
