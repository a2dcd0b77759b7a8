"""Memory of a PPO job by its parts, bytes. d: width, m: inner size of the MLP, h: size of a head, H heads, V words.

`s` is the size of a base weight and of what the model computes; what is trained is float32. The activations are those
that the backward pass keeps: frozen weights need no input, adapters need theirs in float32.
"""

from __future__ import annotations

from rlhf.contracts.jobs import LoraConfig, PpoJobConfig
from services.trainer.estimate.ppo_load import MicroBatch, StepLoad
from services.trainer.estimate.shape import Linear, ModelShape

LOGPROB_CHUNK = 256
"""As `rlhf.lm.logprobs.CHUNK`."""


def learner_memory(shape: ModelShape, config: PpoJobConfig, load: StepLoad, size: int) -> dict[str, int]:
    """The learner's peak, in the first backward pass. Args: shape; config; load; size, s."""
    adapter, head = adapter_parameters(shape, config.lora), shape.width + 1
    batch, top = load.micro_batch, adapted_layers(shape, config.lora)
    return {
        "base_weights": shape.parameters * size + shape.mask_bytes,
        "adapter": 4 * adapter,
        "value_head": 4 * head,
        "gradients": 4 * (adapter + head),
        "adamw_moments": 8 * (adapter + head),
        "lower_features": load.learner_tokens * shape.width * size,
        "activations": activations(shape, config.lora, batch, top, size, config.update.gradient_checkpointing),
        "working": max(_logprob_chunk(shape, batch), _layer_working(shape, batch, size)),
    }


def policy_memory(shape: ModelShape, lora: LoraConfig, max_batch_tokens: int, size: int) -> dict[str, int]:
    """A policy server. Args: shape; lora; max_batch_tokens, RLHF_MAX_BATCH_TOKENS of the policy; size, s."""
    layer = sum(linear.weights for linear in adapted_linears(shape, lora))
    return {
        "base_weights": shape.parameters * size + shape.mask_bytes,
        "key_value_cache": max_batch_tokens * key_value_bytes(shape, size),
        # Served merged: a copy of the adapted weights; the newest, and the one before until no batch uses it.
        "merged_adapters": 2 * adapted_layers(shape, lora) * layer * size,
    }


def key_value_bytes(shape: ModelShape, size: int) -> int:
    """What a token takes in the cache: a key and a value in each layer."""
    return 2 * shape.layers * shape.key_value_heads * shape.head_size * size


def adapted_layers(shape: ModelShape, lora: LoraConfig) -> int:
    """How many carry adapters."""
    return shape.layers if lora.top_layers is None else min(lora.top_layers, shape.layers)


def adapted_linears(shape: ModelShape, lora: LoraConfig) -> tuple[Linear, ...]:
    """Of a layer."""
    return shape.linears if lora.modules == "all" else shape.attention


def adapter_parameters(shape: ModelShape, lora: LoraConfig) -> int:
    """A [r, in] and B [out, r] of each adapted module."""
    layer = sum(lora.r * (linear.inputs + linear.outputs) for linear in adapted_linears(shape, lora))
    return adapted_layers(shape, lora) * layer


def activations(
    shape: ModelShape, lora: LoraConfig, batch: MicroBatch, layers: int, size: int, checkpointing: bool
) -> int:
    """What the backward pass of one micro-batch keeps. With checkpointing: each layer's input, and one layer's own."""
    layer = (_gpt_neo_layer if shape.family == "gpt_neo" else _rotary_layer)(shape, lora, batch, size)
    # The first layer's norm keeps nothing: its input needs no gradient.
    norm = batch.tokens * (shape.width * size + 2 * size if shape.family == "gpt_neo" else 4 * shape.width + 4)
    once = _after_layers(shape, batch, size)
    if shape.family != "gpt_neo":
        once += 2 * batch.tokens * shape.head_size * size  # cosine and sine
        once += batch.rows * batch.length**2 * size if batch.packed else 0
    if checkpointing:
        return layers * batch.tokens * shape.width * size + layer + once
    return layers * layer - norm + once


def _rotary_layer(shape: ModelShape, lora: LoraConfig, batch: MicroBatch, size: int) -> int:
    d, m, queries = shape.width, shape.inner, shape.query_width
    half = size < 4
    # Under a mask, keys and values are repeated for every head that shares them.
    keys = queries if batch.packed else shape.key_value_heads * shape.head_size
    token = 2 * (4 * d + 4)  # two norms, in float32, with a factor each
    token += (3 if half else 1) * 4 * d + 4 * 4 * lora.r  # adapters' input of q, k, v, and all four ranks
    token += size * (2 * queries + 2 * keys) + 4 * shape.heads  # queries, output, keys, values, normaliser
    token += 4 * queries if half else 0  # the output projection's adapter has its own copy
    token += 3 * m * size  # gate, its activation, up
    if lora.modules == "all":
        token += (2 if half else 1) * 4 * d + 4 * m + 3 * 4 * lora.r
    return batch.tokens * token


def _gpt_neo_layer(shape: ModelShape, lora: LoraConfig, batch: MicroBatch, size: int) -> int:
    d, m = shape.width, shape.inner
    half = size < 4
    token = 2 * (size * d + 2 * size)  # two norms
    token += (3 if half else 1) * 4 * d + 4 * 4 * lora.r
    token += 2 * 4 * d + size * d + 4 * d  # queries and keys in float32, values, the output projection's input
    token += shape.heads * batch.length * (4 + (size if half else 0))  # attention weights, and their copy
    token += 4 * m * size  # GELU by its formula
    if lora.modules == "all":
        token += 4 * d + 4 * m + 2 * 4 * lora.r
    return batch.tokens * token


def _after_layers(shape: ModelShape, batch: MicroBatch, size: int) -> int:
    """Of response tokens: the final norm, its output for the value head, the gradient of the log-probability."""
    norm = size * shape.width + 2 * size if shape.family == "gpt_neo" else 4 * shape.width + 4
    return batch.responses * (norm + (4 + size) * shape.width + 8)


def _logprob_chunk(shape: ModelShape, batch: MicroBatch) -> int:
    """Logits, probabilities, and their product for the entropy, float32."""
    return 3 * 4 * min(LOGPROB_CHUNK, batch.responses) * shape.vocabulary


def _layer_working(shape: ModelShape, batch: MicroBatch, size: int) -> int:
    """Gradients on their way through the last layer."""
    token = 3 * shape.inner * size + 2 * shape.width * size
    if shape.family == "gpt_neo":
        token = max(token, 3 * 4 * shape.heads * batch.length)
    return batch.tokens * token
