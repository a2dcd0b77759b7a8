"""Reads an adapter from the artifact store, in PEFT's format or as replaced tensors, and checks that it fits."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rlhf.artifacts.replaced import WEIGHTS, replaces_weights
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict
from services.policy.engine.linears import LowRank, Place, Places, Replacement

KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


@dataclass
class Update:
    """What an adapter changes, on the model's device.

    Attributes:
        linears: by the name of the layer.
        vectors: other parameters, by their names.
    """

    linears: dict[str, LowRank | Replacement] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)


def read_adapter(store: ArtifactStore, ref: str, places: Places) -> Update:
    """The update of an adapter.

    Raises:
        NotFound: no such adapter.
        Conflict: it is corrupt, or does not fit this model; says why.
    """
    folder = store.resolve("adapters", ref)
    read = read_replaced if replaces_weights(folder) else read_lora
    try:
        return read(ref, folder, places)
    except (OSError, ValueError, SafetensorError) as error:
        raise Conflict(f"adapter {ref} cannot be read ({error}); publish it again") from error


def read_lora(ref: str, folder: Path, places: Places) -> Update:
    """An adapter in PEFT's format. Raises as read_adapter, and OSError, ValueError or SafetensorError."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    if not isinstance(config, dict):
        raise ValueError("adapter_config.json is not a JSON object")
    updates = read_factors(ref, config, tensors)
    for name, update in updates.items():
        check_fit(ref, name, update, places.linears.get(name))
    device = places.device
    return Update({name: LowRank(u.a.to(device), u.b.to(device), u.scale) for name, u in updates.items()})


def read_replaced(ref: str, folder: Path, places: Places) -> Update:
    """Tensors that take the place of the base model's. Raises as read_adapter, and OSError or SafetensorError."""
    tensors = load_file(folder / WEIGHTS)
    update, parts = Update(), dict[str, dict[str, Tensor]]()
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        place, vector = places.linears.get(layer), places.vectors.get(name)
        if place is not None and (part == "weight" or (part == "bias" and place.has_bias)):
            wanted = [place.out_features, place.in_features] if part == "weight" else [place.out_features]
            parts.setdefault(layer, {})[part] = tensor.to(places.device)
        elif vector is not None:
            wanted = list(vector.parameter.shape)
            update.vectors[name] = tensor.to(places.device)
        else:
            raise Conflict(f"adapter {ref} replaces {name}, which this model does not have or cannot exchange")
        if list(tensor.shape) != wanted:
            raise Conflict(
                f"adapter {ref} has {name} of shape {list(tensor.shape)}, where this model's is {wanted}; it was "
                "trained on another model"
            )
        if not bool(tensor.isfinite().all()):
            raise Conflict(f"adapter {ref} has values in {name} that are not numbers; publish a sound one")
    if not tensors:
        raise Conflict(f"adapter {ref} replaces nothing: its {WEIGHTS} holds no tensor")
    update.linears = {name: Replacement(**pair) for name, pair in parts.items()}
    return update


def check_fit(ref: str, name: str, update: LowRank, place: Place | None) -> None:
    """Raises Conflict when the update cannot change the layer of this name; None: the model has no such layer."""
    if place is None:
        raise Conflict(f"adapter {ref} adapts {name}, which this model does not have; it was trained on another")
    seen = (update.b.shape[0], update.a.shape[1])
    if seen != (place.out_features, place.in_features) or update.a.shape[0] != update.b.shape[1]:
        raise Conflict(
            f"adapter {ref} has factors B {list(update.b.shape)} and A {list(update.a.shape)} for {name}, whose "
            f"weight is {[place.out_features, place.in_features]}; it was trained on another model"
        )
    if not bool(update.a.isfinite().all() and update.b.isfinite().all()):
        raise Conflict(f"adapter {ref} has weights for {name} that are not numbers; publish a sound one")


def read_factors(ref: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, LowRank]:
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
