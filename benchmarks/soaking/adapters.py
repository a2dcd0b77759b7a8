"""Random LoRA adapters in PEFT's format, written without peft: large enough that each changes what the model says."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rlhf.artifacts.store import ArtifactStore

NAME, VERSIONS, RANK, ALPHA = "soak", (1, 2), 4, 8
TARGETS = ("q_proj", "v_proj")
SIZE = 0.5
"""Standard deviation of an adapter's update relative to that of the weight it is added to."""


def publish_adapters(store: Path, model: str) -> list[str]:
    """Publishes two versions for a model of the Llama family. Returns their references."""
    artifacts = ArtifactStore(store)
    return [
        artifacts.publish("adapters", NAME, version, lambda folder, seed=version: write_adapter(model, folder, seed))
        for version in VERSIONS
    ]


def write_adapter(model: str, folder: Path, seed: int) -> None:
    """Writes adapter_config.json and adapter_model.safetensors for the query and value projections of all layers."""
    import torch
    from safetensors.torch import save_file

    from rlhf.lm.loading import load_language_model

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in load_language_model(model).model.named_modules():
        if name.endswith(TARGETS):
            wide, high = int(module.in_features), int(module.out_features)
            # An entry of (α/r)·B A sums r products of two factors: its deviation is (α/r)·√r·deviation².
            deviation = math.sqrt(SIZE * float(module.weight.std()) / (ALPHA / RANK * math.sqrt(RANK)))
            for factor, shape in (("A", (RANK, wide)), ("B", (high, RANK))):
                key = f"base_model.model.{name}.lora_{factor}.weight"
                tensors[key] = deviation * torch.randn(shape, generator=generator)
    if not tensors:
        raise ValueError(f"{model} has no layer named {' or '.join(TARGETS)}; give a model of the Llama family")
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS)}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM", "bias": "none"}))
