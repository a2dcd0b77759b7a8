"""Memory of a PPO job by its parts, bytes. d: width, m: inner size of the MLP, h: size of a head, H heads, V words.

`s` is the size of a base weight and of what the model computes; what is trained is float32.
"""

from __future__ import annotations

from rlhf.contracts.jobs import FullConfig, PpoJobConfig
from services.trainer.estimate.activations import activations
from services.trainer.estimate.ppo_load import MicroBatch, StepLoad
from services.trainer.estimate.shape import ModelShape
from services.trainer.estimate.trained import Trained, adapted_linears, trained_layers, trained_parameters

LOGPROB_CHUNK = 256
"""As `rlhf.lm.logprobs.CHUNK`."""


def learner_memory(shape: ModelShape, config: PpoJobConfig, load: StepLoad, size: int) -> dict[str, int]:
    """The learner's peak, in a backward pass or a step of AdamW. Args: shape; config; load; size, s."""
    trained, batch = config.trained, load.micro_batch
    parameters, head, layers = trained_parameters(shape, trained), shape.width + 1, trained_layers(shape, trained)
    kept = {"activations": activations(shape, trained, batch, layers, size, config.update.gradient_checkpointing)}
    name, weight_gradient = "adapter", 0
    if isinstance(trained, FullConfig):
        name, weight_gradient = "trained_weights", 4 * max(linear.weights for linear in shape.linears)
        if size < 4:
            # Autocast computes with copies in the base model's type, of all layers until a forward pass has ended.
            kept["autocast_copies"] = size * layers * shape.layer_weights
    backward = max(_logprob_chunk(shape, batch), _layer_working(shape, batch, size) + weight_gradient)
    # A GPU's AdamW takes the roots of all second moments together; what a backward pass kept is free again by then.
    optimizer = 4 * (parameters + head) - sum(kept.values())
    return {
        "base_weights": shape.parameters * size + shape.mask_bytes,
        name: 4 * parameters,
        "value_head": 4 * head,
        "gradients": 4 * (parameters + head),
        "adamw_moments": 8 * (parameters + head),
        "lower_features": load.learner_tokens * shape.width * size,
        **kept,
        "working": max(backward, optimizer),
    }


def policy_memory(shape: ModelShape, trained: Trained, max_batch_tokens: int, size: int) -> dict[str, int]:
    """A policy server. Args: shape; trained; max_batch_tokens, RLHF_MAX_BATCH_TOKENS of the policy; size, s."""
    if isinstance(trained, FullConfig):
        name, merged = "merged_weights", trained_parameters(shape, trained)
    else:
        layer = sum(linear.weights for linear in adapted_linears(shape, trained))
        name, merged = "merged_adapters", trained_layers(shape, trained) * layer
    return {
        "base_weights": shape.parameters * size + shape.mask_bytes,
        "key_value_cache": max_batch_tokens * key_value_bytes(shape, size),
        # Served merged: a copy of the changed weights; the newest, and the one before until no batch uses it.
        name: 2 * merged * size,
    }


def key_value_bytes(shape: ModelShape, size: int) -> int:
    """What a token takes in the cache: a key and a value in each layer."""
    return 2 * shape.layers * shape.key_value_heads * shape.head_size * size


def _logprob_chunk(shape: ModelShape, batch: MicroBatch) -> int:
    """Logits, probabilities, and their product for the entropy, float32."""
    return 3 * 4 * min(LOGPROB_CHUNK, batch.responses) * shape.vocabulary


def _layer_working(shape: ModelShape, batch: MicroBatch, size: int) -> int:
    """Gradients on their way through the last layer."""
    token = 3 * shape.inner * size + 2 * shape.width * size
    if shape.family == "gpt_neo":
        token = max(token, 3 * 4 * shape.heads * batch.length)
    return batch.tokens * token
