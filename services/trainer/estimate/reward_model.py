"""What a reward-model job takes: one reading of all exchanges, then members that run at one position of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.contracts.base import Prompt, prompt_messages
from rlhf.contracts.jobs import RewardModelJobConfig
from services.trainer.estimate.ppo_load import CHARACTERS_PER_TOKEN, prompt_tokens
from services.trainer.estimate.shape import Linear, ModelShape

READ_TOKENS = 2048
"""As `services.trainer.reward_model.train.TOKEN_BUDGET`."""
SCORE_BATCH = 64
"""As `rlhf.lm.ensemble.MEMBER_BATCH`."""


@dataclass(frozen=True)
class ReadingLoad:
    """What is read once.

    Attributes:
        exchanges: prompt and response, two a pair.
        prompt_tokens: of different prompts, where the family shares them.
        response_tokens: with the EOS that closes each.
        longest: tokens of the longest exchange.
    """

    exchanges: int
    prompt_tokens: int
    response_tokens: int
    longest: int

    @property
    def tokens(self) -> int:
        """Of prompts and responses."""
        return self.prompt_tokens + self.response_tokens


def reading_load(config: RewardModelJobConfig, *, packs: bool) -> ReadingLoad:
    """Args: config; packs, whether the model's family shares equal prompts."""
    prompts: dict[str, int] = {}
    every, responses, longest = 0, 0, 0
    for pair in config.pairs:
        prompt = min(prompt_tokens(pair.prompt), config.max_length)
        prompts[repr(pair.prompt)] = prompt
        for response in (pair.chosen, pair.rejected):
            tokens = response_tokens(response)
            every, responses = every + prompt, responses + tokens
            longest = max(longest, min(prompt + tokens, config.max_length))
    return ReadingLoad(2 * len(config.pairs), sum(prompts.values()) if packs else every, responses, longest)


def response_tokens(response: Prompt) -> int:
    """About so many, with the EOS."""
    characters = sum(len(message.content) for message in prompt_messages(response))
    return math.ceil(characters / CHARACTERS_PER_TOKEN) + 1


def trunk_layers(shape: ModelShape, config: RewardModelJobConfig) -> int:
    """Layers of the backbone that are used."""
    return config.trunk_layers or max(1, shape.layers // 2)


def member_linears(shape: ModelShape) -> tuple[Linear, ...]:
    """Modules with adapters: keys and values are the frozen model's."""
    return tuple(linear for linear in shape.linears if linear.name not in ("k_proj", "v_proj"))


def member_parameters(shape: ModelShape, config: RewardModelJobConfig) -> int:
    """Of all members together: adapters, a head and its bias each."""
    layer = sum(config.lora_r * (linear.inputs + linear.outputs) for linear in member_linears(shape))
    return config.members * (config.member_layers * layer + 2 * shape.width + 1)


def learner_memory(shape: ModelShape, config: RewardModelJobConfig, load: ReadingLoad, size: int) -> dict[str, int]:
    """The learner's peak. Args: shape; config; load; size, of a base weight."""
    members = member_parameters(shape, config)
    keys = 2 * config.member_layers * shape.key_value_heads * shape.head_size
    readings = 2 * load.tokens * keys
    return {
        "base_weights": shape.parameters * size + shape.mask_bytes,
        "members": 4 * members,
        "best_members": 4 * members,
        "gradients": 4 * members,
        "adamw_moments": 8 * members,
        "readings": readings + load.exchanges * 2 * shape.width * size,
        # While all are read, and joined to one tensor; or heads are fitted; or members learn from some, or score some.
        "working": max(
            readings + _trunk_working(shape, size),
            _head_working(shape, load),
            _member_working(shape, config, load, size),
        ),
    }


def job_flops(shape: ModelShape, config: RewardModelJobConfig, load: ReadingLoad) -> dict[str, float]:
    """The whole job, all epochs: members cost three times their forward pass, at one position of each exchange."""
    length = load.tokens / load.exchanges
    layer = 2.0 * shape.layer_weights + 4.0 * shape.query_width * length
    members = config.members * config.member_layers * layer
    return {
        "reading": load.tokens * trunk_layers(shape, config) * layer,
        "members": 3.0 * config.epochs * load.exchanges * members,
    }


def _trunk_working(shape: ModelShape, size: int) -> int:
    return READ_TOKENS * (3 * shape.inner + 4 * shape.width) * size


def _head_working(shape: ModelShape, load: ReadingLoad) -> int:
    """Features of all exchanges, and those of the training pairs by side: float32."""
    return 2 * load.exchanges * 2 * shape.width * 4


def _member_working(shape: ModelShape, config: RewardModelJobConfig, load: ReadingLoad, size: int) -> int:
    """Keys and values gathered for each member's exchanges, float32, and repeated for every head."""
    learned = 2 * (config.pairs_per_microbatch or config.batch_size)
    rows = config.members * max(min(learned, load.exchanges), min(SCORE_BATCH, load.exchanges))
    heads = shape.key_value_heads + shape.heads
    return rows * load.longest * 2 * config.member_layers * shape.head_size * heads * size
