"""What a PPO job trains of a model: adapters on the upper layers, or these layers' own weights. Counts alone."""

from __future__ import annotations

from rlhf.contracts.jobs import FullConfig, LoraConfig
from services.trainer.estimate.shape import Linear, ModelShape

Trained = LoraConfig | FullConfig


def trained_layers(shape: ModelShape, trained: Trained) -> int:
    """How many upper layers carry adapters, or are trained themselves."""
    return shape.layers if trained.top_layers is None else min(trained.top_layers, shape.layers)


def trained_parameters(shape: ModelShape, trained: Trained) -> int:
    """Without the value head's: a [r, in] and B [out, r] of each adapted module, or all of the layers and the norm."""
    layers = trained_layers(shape, trained)
    if isinstance(trained, FullConfig):
        return layers * shape.layer_parameters + shape.final_norm
    return layers * sum(trained.r * (linear.inputs + linear.outputs) for linear in adapted_linears(shape, trained))


def adapted_linears(shape: ModelShape, lora: LoraConfig) -> tuple[Linear, ...]:
    """Of a layer."""
    return shape.linears if lora.modules == "all" else shape.attention
