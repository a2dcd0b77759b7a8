"""Floating-point operations, two for a multiplication with its addition, by pass.

A token costs 2·W in W weights, and 4·H·h·c in the attention of a layer over c positions. Going back through frozen
weights costs as much again, since only the input's gradient is computed; adapters, and weights that train, cost three
times their forward pass: 6·W a token.
"""

from __future__ import annotations

from rlhf.contracts.jobs import FullConfig, PpoJobConfig
from services.trainer.estimate.ppo_load import StepLoad
from services.trainer.estimate.shape import ModelShape
from services.trainer.estimate.trained import trained_layers, trained_parameters


def ppo_step_flops(shape: ModelShape, config: PpoJobConfig, load: StepLoad) -> dict[str, float]:
    """One PPO step without the reward model's. Args: shape; config; load."""
    full, top = isinstance(config.trained, FullConfig), trained_layers(shape, config.trained)
    lower = shape.layers - top
    layer = load.learner_tokens * _layer_token(shape, load.row_length)
    adapters = 0.0 if full else 2.0 * load.learner_tokens * trained_parameters(shape, config.trained)
    weight_gradients = 2.0 * load.learner_tokens * top * shape.layer_weights if full else 0.0
    head = 2.0 * load.response_tokens * shape.vocabulary * shape.width
    passes = 3 if config.update.gradient_checkpointing else 2
    # Going back through attention computes the gradients of queries, keys and values: as much again and once more.
    attention = load.learner_tokens * _attention_token(shape, load.row_length)
    epoch = top * (passes * layer + attention) + (passes + 1) * adapters + weight_gradients + 2 * head
    return {
        "sampling": _sampling(shape, load),
        "lower_layers": lower * layer,
        "old_and_reference": 2 * top * layer + adapters + 2 * head,
        "update": config.update.epochs * epoch,
    }


def _sampling(shape: ModelShape, load: StepLoad) -> float:
    prompt, response = load.prompt_tokens / load.prompts, load.response_tokens / load.samples
    prefill = load.prompt_tokens * shape.layers * _layer_token(shape, prompt / 2)
    decode = load.response_tokens * shape.layers * _layer_token(shape, prompt + response / 2)
    head = 2.0 * (load.response_tokens + load.prompts) * shape.vocabulary * shape.width
    return prefill + decode + head


def _layer_token(shape: ModelShape, positions: float) -> float:
    return 2.0 * shape.layer_weights + _attention_token(shape, positions)


def _attention_token(shape: ModelShape, positions: float) -> float:
    return 4.0 * shape.query_width * positions
