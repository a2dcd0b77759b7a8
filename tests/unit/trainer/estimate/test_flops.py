"""Operations against sums by hand on a small model."""

import pytest

from rlhf.contracts.jobs import PpoJobConfig
from services.trainer.estimate.flops import ppo_step_flops
from services.trainer.estimate.ppo_load import step_load
from services.trainer.estimate.shape import read_shape

SHAPE = read_shape(
    {
        "model_type": "llama",
        "hidden_size": 4,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 6,
        "vocab_size": 10,
    }
)
# Four attention matrices of 4 × 4 and three of the MLP of 4 × 6.
WEIGHTS = 4 * 16 + 3 * 24
# r = 1: (4 + 4) in each of four, (4 + 6) in each of three; two layers.
ADAPTERS = 2 * (4 * 8 + 3 * 10)


def flops(full: bool = False, **update: object) -> dict[str, float]:
    rollout = {"prompts_per_step": 2, "samples_per_prompt": 1, "max_new_tokens": 8}
    trained = {"full": {"top_layers": 2}} if full else {"lora": {"r": 1, "top_layers": 2}}
    body = {"kind": "ppo", "prompts": ["x"], "reward_model": "rm@1", "rollout": rollout, "update": update, **trained}
    config = PpoJobConfig.model_validate(body)
    return ppo_step_flops(SHAPE, config, step_load(config, packs=True, lengths=[6]))


def test_a_step_is_the_sum_of_its_passes() -> None:
    # Two rows of 6 + 8 tokens; attention over 14 positions costs 4 · 4 · 14 a token and layer.
    layer = 28 * (2 * WEIGHTS + 4 * 4 * 14)
    attention, head = 28 * 4 * 4 * 14, 2 * 16 * 10 * 4
    told = flops(epochs=3)
    assert told["lower_layers"] == layer
    assert told["old_and_reference"] == 2 * 2 * layer + 2 * 28 * ADAPTERS + 2 * head
    # Forward and back through both layers, attention once more, adapters three times, the head and its gradient.
    assert told["update"] == 3 * (2 * (2 * layer + attention) + 3 * 2 * 28 * ADAPTERS + 2 * head)
    # 12 prompt tokens see 3 positions on average, 16 response tokens 6 + 4.
    prefill, decode = 12 * 3 * (2 * WEIGHTS + 4 * 4 * 3), 16 * 3 * (2 * WEIGHTS + 4 * 4 * 10)
    assert told["sampling"] == prefill + decode + 2 * 18 * 10 * 4


def test_checkpointing_costs_another_forward_pass_of_the_trained_layers() -> None:
    plain, again = flops(epochs=1), flops(epochs=1, gradient_checkpointing=True)
    layer = 28 * (2 * WEIGHTS + 4 * 4 * 14)
    assert again["update"] - plain["update"] == pytest.approx(2 * layer + 2 * 28 * ADAPTERS)
    assert {**again, "update": 0} == {**plain, "update": 0}


def test_weights_that_train_cost_three_times_their_forward_pass() -> None:
    # 28 tokens through two layers: forward 2·W, the inputs' gradient 2·W, the weights' gradient 2·W; attention thrice.
    told, head = flops(full=True, epochs=3), 2 * 16 * 10 * 4
    assert told["update"] == 3 * (2 * 28 * (6 * WEIGHTS + 3 * 4 * 4 * 14) + 2 * head)
    # Old and reference passes go through the same layers, without adapters.
    assert told["old_and_reference"] == 2 * 2 * 28 * (2 * WEIGHTS + 4 * 4 * 14) + 2 * head
    again = flops(full=True, epochs=3, gradient_checkpointing=True)
    assert again["update"] - told["update"] == 3 * 2 * 28 * (2 * WEIGHTS + 4 * 4 * 14)
