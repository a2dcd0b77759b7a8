"""What the backward pass of a PPO micro-batch keeps, bytes. Letters as in ppo_memory.

Frozen weights need no input, adapters need theirs in float32. Weights that train need theirs in the type that they
compute in, which is the base model's: of a base in half precision autocast makes that type, a copy for each product.
"""

from __future__ import annotations

from rlhf.contracts.jobs import FullConfig
from services.trainer.estimate.ppo_load import MicroBatch
from services.trainer.estimate.shape import ModelShape
from services.trainer.estimate.trained import Trained


def activations(
    shape: ModelShape, trained: Trained, batch: MicroBatch, layers: int, size: int, checkpointing: bool
) -> int:
    """What the backward pass of one micro-batch keeps. With checkpointing: each layer's input, and one layer's own."""
    gpt_neo, full = shape.family == "gpt_neo", isinstance(trained, FullConfig)
    layer = batch.tokens * (_gpt_neo_layer if gpt_neo else _rotary_layer)(shape, trained, batch, size)
    once = _after_layers(shape, trained, batch, size)
    if not gpt_neo:
        once += 2 * batch.tokens * shape.head_size * size  # cosine and sine
        once += batch.rows * batch.length**2 * size if batch.packed else 0
    if checkpointing:
        return layers * batch.tokens * shape.width * size + layer + once
    # The first layer's input needs no gradient: its norm keeps nothing of it, but GPT-Neo's for a gradient of its own.
    first = 0 if full and gpt_neo else batch.tokens * _norm(shape, size)
    return layers * layer - first + once


def _norm(shape: ModelShape, size: int) -> int:
    """The input of a frozen norm, and its factors: GPT-Neo's mean and deviation, of others one in float32."""
    return size * (shape.width + 2) if shape.family == "gpt_neo" else 4 * (shape.width + 1)


def _rotary_layer(shape: ModelShape, trained: Trained, batch: MicroBatch, size: int) -> int:
    # Under a mask, keys and values are repeated for every head that shares them.
    keys = shape.query_width if batch.packed else shape.key_value_heads * shape.head_size
    token = 2 * _norm(shape, size)
    token += size * (2 * shape.query_width + 2 * keys) + 4 * shape.heads  # queries, output, keys, values, normaliser
    token += 3 * shape.inner * size  # gate, its activation, up
    return token + _rotary_inputs(shape, trained, size)


def _rotary_inputs(shape: ModelShape, trained: Trained, size: int) -> int:
    """What adapters or weights need to know of a token for their own gradients."""
    d, m, half = shape.width, shape.inner, size < 4
    copies = 3 if half else 1  # for q, k and v
    if isinstance(trained, FullConfig):
        copies += 2 if half else 1  # for gate and up
        return size * (copies * d + m + 2 * d)  # the output projection's is there; norms need what they scale
    token = copies * 4 * d + 4 * 4 * trained.r  # and all four ranks
    token += 4 * shape.query_width if half else 0  # the output projection's adapter has its own copy
    if trained.modules == "all":
        token += (2 if half else 1) * 4 * d + 4 * m + 3 * 4 * trained.r
    return token


def _gpt_neo_layer(shape: ModelShape, trained: Trained, batch: MicroBatch, size: int) -> int:
    d, m, half = shape.width, shape.inner, size < 4
    weights = shape.heads * batch.length * (4 + (size if half else 0))  # of attention, and their copy
    if isinstance(trained, FullConfig) and half:
        # By autocast on a GPU: norms and softmax in float32, GELU partly; on a CPU it leaves them in the base's type.
        return 2 * (4 * d + 8) + size * 8 * d + weights + (3 * 4 + 2 * size) * m
    rank, mlp = (0, True) if isinstance(trained, FullConfig) else (trained.r, trained.modules == "all")
    token = 2 * _norm(shape, size)
    token += (3 if half else 1) * 4 * d + 4 * 4 * rank
    token += 2 * 4 * d + size * d + 4 * d  # queries and keys in float32, values, the output projection's input
    token += weights
    token += 4 * m * size  # GELU by its formula
    if mlp:
        token += 4 * d + 4 * m + 2 * 4 * rank
    return token


def _after_layers(shape: ModelShape, trained: Trained, batch: MicroBatch, size: int) -> int:
    """Of response tokens: the final norm, its output for the value head, the gradient of the log-probability."""
    norm = _norm(shape, size)
    if isinstance(trained, FullConfig):
        # GPT-Neo's norm trains on what it keeps anyway, in half precision by autocast in float32.
        norm = 4 * shape.width + 8 if shape.family == "gpt_neo" else norm + size * shape.width
    return batch.responses * (norm + (4 + size) * shape.width + 8)
