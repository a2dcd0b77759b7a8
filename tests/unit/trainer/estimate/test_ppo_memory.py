"""Estimated memory against what a real actor holds, and what its forward pass keeps for the backward pass."""

import pytest
import torch
from torch import Tensor

from rlhf.contracts.jobs import LoraConfig, PpoJobConfig
from rlhf.lm import logprobs
from services.trainer.estimate.ppo_load import MicroBatch, step_load
from services.trainer.estimate.ppo_memory import LOGPROB_CHUNK, activations, adapter_parameters, learner_memory
from services.trainer.estimate.shape import read_shape
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import collate
from tests.unit.ppo.stand_in import make_batch, tiny_gpt_neo, tiny_llama

BASES = {"llama": tiny_llama, "gpt_neo": tiny_gpt_neo}
PROMPT, RESPONSE, PROMPTS = 7, 9, 2


class Kept:
    """Counts the memory that autograd keeps, without parameters and buffers of the model; shared memory once."""

    def __init__(self, actor: Actor) -> None:
        own = [*actor.parameters(), *actor.buffers()]
        self._known = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._seen: dict[int, Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in self._known:
            self._seen[place] = tensor
        return tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._seen.values())


@pytest.mark.parametrize("modules", ["all", "attention"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "samples"), [("llama", 1), ("llama", 3), ("gpt_neo", 2)])
def test_activations_are_what_the_forward_pass_keeps(
    family: str, samples: int, dtype: torch.dtype, modules: str
) -> None:
    base = BASES[family]()
    base.model.to(dtype)
    lora = LoraConfig(r=5, modules=modules, top_layers=2)
    actor = Actor(base, lora, temperature=1.0, seed=0)
    responses = [[[2] * RESPONSE] * samples] * PROMPTS
    rollout = collate([make_batch([[1] * PROMPT] * PROMPTS, responses)], row_tokens=100 if actor.stack.packs else None)
    features = actor.lower_features(rollout.rows)
    kept = Kept(actor)
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        actor(rollout.rows, features, rollout.response_ids)
    shape = read_shape(base.model.config.to_dict())
    together = samples if actor.stack.packs else 1
    batch = MicroBatch(len(rollout.rows), PROMPT + together * RESPONSE, PROMPTS * samples * RESPONSE, together > 1)
    assert batch.tokens == sum(row.length for row in rollout.rows)
    assert activations(shape, lora, batch, 2, dtype.itemsize, checkpointing=False) == kept.bytes


@pytest.mark.parametrize("family", BASES)
def test_weights_adapter_and_value_head_are_counted_exactly(family: str) -> None:
    base = BASES[family]()
    shape = read_shape(base.model.config.to_dict())
    held = sum(tensor.nbytes for tensor in base.model.parameters())
    held += sum(buffer.nbytes for name, buffer in base.model.named_buffers() if name.endswith("attention.bias"))
    config = PpoJobConfig(kind="ppo", prompts=["Hi"], reward_model="rm@1", lora=LoraConfig(r=3, top_layers=2))
    actor = Actor(base, config.lora, temperature=1.0, seed=0)
    trainable = actor.trainable()
    head = sum(p.numel() for name, p in trainable.items() if name.startswith("value_head."))
    adapter = sum(p.numel() for p in trainable.values()) - head
    parts = learner_memory(shape, config, step_load(config, packs=shape.packs), 4)
    assert adapter_parameters(shape, config.lora) == adapter
    assert parts["base_weights"] == held
    assert (parts["adapter"], parts["value_head"]) == (4 * adapter, 4 * head)
    assert (parts["gradients"], parts["adamw_moments"]) == (4 * (adapter + head), 8 * (adapter + head))


def test_checkpointing_keeps_inputs_and_one_layers_activations() -> None:
    shape, lora = read_shape(tiny_llama().model.config.to_dict()), LoraConfig(r=5)
    batch = MicroBatch(rows=2, length=10, responses=12, packed=False)
    one, two, three = (activations(shape, lora, batch, layers, 4, checkpointing=False) for layers in (1, 2, 3))
    layer, norm = three - two, 2 * 10 * (4 * 32 + 4)
    assert two - one == layer
    # Three inputs of [2, 10, 32] float32, a whole layer, and what comes once.
    once = one - layer + norm
    assert activations(shape, lora, batch, 3, 4, checkpointing=True) == 3 * 2 * 10 * 32 * 4 + layer + once


def test_the_chunk_is_the_learners() -> None:
    assert LOGPROB_CHUNK == logprobs.CHUNK
