"""LoRA adapters of the artifact store, merged into the layers they adapt. The base weights are never written to.

The low-rank factors of the last few adapters stay in memory; the merged weights of one. Merging takes about as long as
two decoding steps, and a merged layer costs nothing afterwards, while unmerged factors cost two extra products a layer
and step.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict
from services.policy.engine.instruments import ADAPTERS
from services.policy.engine.linears import ExchangeableLinear

log = logging.getLogger(__name__)
KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


@dataclass(frozen=True)
class LowRank:
    """The update `scale·B A` of one layer: a [r, in], b [out, r]."""

    a: Tensor
    b: Tensor
    scale: float


Factors = dict[str, LowRank]


class AdapterLibrary:
    """Decides with which weights the model computes. The engine's thread owns it; others only read `loaded`.

    Attributes:
        loaded: adapters in memory, the one used last at the end.
    """

    def __init__(self, store: ArtifactStore, linears: dict[str, ExchangeableLinear], kept: int) -> None:
        """Args: store, of published adapters; linears, the model's layers by name; kept, adapters held in memory."""
        self._store, self._linears, self._kept = store, linears, kept
        self._factors: OrderedDict[str, Factors] = OrderedDict()
        self._merged: dict[str, Tensor] = {}
        self._merged_ref: str | None = None
        self._active: str | None = None
        self.loaded: tuple[str, ...] = ()

    def activate(self, ref: str | None) -> None:
        """The model computes with this adapter from now on; None is the base model, exactly.

        Raises:
            NotFound: no such adapter.
            Conflict: it is corrupt, or does not fit this model; says why. The model computes as before.
        """
        if ref is not None:
            if ref not in self._factors:
                self._factors[ref] = self._load(ref)
                while len(self._factors) > self._kept:
                    self._factors.popitem(last=False)
                ADAPTERS.set(len(self._factors))
            self._factors.move_to_end(ref)
            self.loaded = tuple(self._factors)
        if ref == self._active:
            return
        for name in self._merged:
            self._linears[name].exchange(None)
        self._active = None
        if ref is not None:
            self._merge(ref)
            for name, weight in self._merged.items():
                self._linears[name].exchange(weight)
            self._active = ref

    @torch.inference_mode()
    def _merge(self, ref: str) -> None:
        if self._merged_ref == ref:
            return
        # Emptied first, so that two sets of merged weights never stand in memory at once.
        self._merged, self._merged_ref = {}, None
        for name, update in self._factors[ref].items():
            self._merged[name] = self._linears[name].adapted(update.a, update.b, update.scale)
        self._merged_ref = ref

    def _load(self, ref: str) -> Factors:
        folder = self._store.resolve("adapters", ref)
        try:
            config = json.loads((folder / "adapter_config.json").read_text())
            tensors = load_file(folder / "adapter_model.safetensors")
            if not isinstance(config, dict):
                raise ValueError("adapter_config.json is not a JSON object")
        except (OSError, ValueError, SafetensorError) as error:
            raise Conflict(f"adapter {ref} cannot be read ({error}); publish it again in PEFT's format") from error
        factors = read_factors(ref, config, tensors)
        for name, update in factors.items():
            self._check_fit(ref, name, update)
        device = next(iter(self._linears.values())).device
        log.info("adapter loaded", extra={"adapter": ref, "layers": len(factors)})
        return {name: LowRank(u.a.to(device), u.b.to(device), u.scale) for name, u in factors.items()}

    def _check_fit(self, ref: str, name: str, update: LowRank) -> None:
        layer = self._linears.get(name)
        if layer is None:
            raise Conflict(f"adapter {ref} adapts {name}, which this model does not have; it was trained on another")
        seen = (update.b.shape[0], update.a.shape[1])
        if seen != (layer.out_features, layer.in_features) or update.a.shape[0] != update.b.shape[1]:
            raise Conflict(
                f"adapter {ref} has factors B {list(update.b.shape)} and A {list(update.a.shape)} for {name}, whose "
                f"weight is {[layer.out_features, layer.in_features]}; it was trained on another model"
            )
        if not bool(update.a.isfinite().all() and update.b.isfinite().all()):
            raise Conflict(f"adapter {ref} has weights for {name} that are not numbers; publish a sound one")


def read_factors(ref: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Factors:
    """The low-rank updates of an adapter in PEFT's format.

    Args:
        ref: its name, for messages.
        config: of adapter_config.json.
        tensors: of adapter_model.safetensors.

    Raises:
        Conflict: it is of a kind that cannot be merged as `scale·B A`; says which setting or weight.
    """
    plain = {"peft_type": "LORA", "use_dora": False, "bias": "none", "modules_to_save": None, "fan_in_fan_out": False}
    for setting, wanted in plain.items():
        if (config.get(setting) or wanted) != wanted:
            raise Conflict(f"adapter {ref} has {setting}={config[setting]!r}; only {wanted!r} can be served")
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None or tensor.ndim != 2:
            raise Conflict(f"adapter {ref} has a weight {key} {list(tensor.shape)}, which is no LoRA factor of a layer")
        pairs.setdefault(match["module"], {})[match["factor"]] = tensor
    halves = [name for name, pair in pairs.items() if len(pair) != 2]
    if halves or not pairs:
        raise Conflict(f"adapter {ref} lacks {f'one of the factors of {halves[0]}' if halves else 'any factor'}")
    return {
        name: LowRank(pair["A"].float(), pair["B"].float(), lora_scale(ref, config, name))
        for name, pair in pairs.items()
    }


def lora_scale(ref: str, config: dict[str, Any], module: str) -> float:
    """`alpha / r` of a module, or `alpha / √r` (rank-stabilised, 2312.03732); patterns override both, as in PEFT."""
    try:
        rank = _by_pattern(config.get("rank_pattern") or {}, module, config["r"])
        alpha = _by_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else float(rank))
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise Conflict(f"adapter {ref} has no usable r and lora_alpha in its configuration ({error!r})") from error


def _by_pattern(patterns: dict[str, Any], module: str, default: Any) -> Any:
    found = [value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", module)]
    return found[0] if found else default
