"""Parts of the estimated memory against what a real actor holds."""

import pytest

from rlhf.contracts.jobs import PpoJobConfig
from rlhf.lm import logprobs
from services.trainer.estimate.ppo_load import step_load
from services.trainer.estimate.ppo_memory import LOGPROB_CHUNK, learner_memory, policy_memory
from services.trainer.estimate.shape import read_shape
from services.trainer.ppo.actor import Actor
from tests.unit.ppo.stand_in import tiny_gpt_neo, tiny_llama
from tests.unit.trainer.estimate.published import LLAMA_2_7B

BASES = {"llama": tiny_llama, "gpt_neo": tiny_gpt_neo}
WAYS = {"adapter": {"lora": {"r": 3, "top_layers": 2}}, "trained_weights": {"full": {"top_layers": 2}}}


def ppo(**settings: object) -> PpoJobConfig:
    return PpoJobConfig.model_validate({"kind": "ppo", "prompts": ["Hi"], "reward_model": "rm@1", **settings})


@pytest.mark.parametrize("part", WAYS)
@pytest.mark.parametrize("family", BASES)
def test_weights_and_what_is_trained_are_counted_exactly(family: str, part: str) -> None:
    base = BASES[family]()
    shape = read_shape(base.model.config.to_dict())
    held = sum(tensor.nbytes for tensor in base.model.parameters())
    held += sum(buffer.nbytes for name, buffer in base.model.named_buffers() if name.endswith("attention.bias"))
    config = ppo(**WAYS[part])
    trainable = Actor(base, config.trained, temperature=1.0, seed=0).trainable()
    head = sum(p.numel() for name, p in trainable.items() if name.startswith("value_head."))
    trained = sum(p.numel() for p in trainable.values()) - head
    parts = learner_memory(shape, config, step_load(config, packs=shape.packs), 4)
    assert parts["base_weights"] == held
    assert (parts[part], parts["value_head"]) == (4 * trained, 4 * head)
    assert (parts["gradients"], parts["adamw_moments"]) == (4 * (trained + head), 8 * (trained + head))


def test_trained_weights_are_copied_for_half_precision_and_served_in_two_versions() -> None:
    base = tiny_llama()
    shape, config = read_shape(base.model.config.to_dict()), ppo(full={"top_layers": 2})
    # A layer: queries and output 32 × 32, keys and values 32 × 16, three of 32 × 48; two norms of 32, and a final one.
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    load = step_load(config, packs=True)
    assert learner_memory(shape, config, load, 2)["autocast_copies"] == 2 * 2 * layer
    assert "autocast_copies" not in learner_memory(shape, config, load, 4)
    assert policy_memory(shape, config.trained, 64, 2)["merged_weights"] == 2 * 2 * (2 * (layer + 64) + 32)


def test_the_peak_is_adamws_step_where_that_takes_more_than_a_backward_pass() -> None:
    shape, config = read_shape(LLAMA_2_7B), ppo(full={}, update={"tokens_per_microbatch": 64})
    parts = learner_memory(shape, config, step_load(config, packs=True, lengths=[8]), 4)
    # The roots of the second moments are as large as the gradients.
    assert parts["activations"] + parts["working"] == parts["gradients"]


def test_the_chunk_is_the_learners() -> None:
    assert LOGPROB_CHUNK == logprobs.CHUNK
