"""Estimated activations against what autograd keeps in the forward pass of a real actor."""

import pytest
import torch
from torch import Tensor

from rlhf.contracts.jobs import FullConfig, LoraConfig
from rlhf.lm.loading import LanguageModel
from services.trainer.estimate.activations import activations
from services.trainer.estimate.ppo_load import MicroBatch
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


def forward_pass(base: LanguageModel, trained: LoraConfig | FullConfig, samples: int) -> tuple[int, MicroBatch]:
    """Bytes that are kept of one micro-batch, and what it was."""
    actor = Actor(base, trained, temperature=1.0, seed=0)
    responses = [[[2] * RESPONSE] * samples] * PROMPTS
    rollout = collate([make_batch([[1] * PROMPT] * PROMPTS, responses)], row_tokens=100 if actor.stack.packs else None)
    features = actor.lower_features(rollout.rows)
    kept = Kept(actor)
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        actor(rollout.rows, features, rollout.response_ids)
    together = samples if actor.stack.packs else 1
    batch = MicroBatch(len(rollout.rows), PROMPT + together * RESPONSE, PROMPTS * samples * RESPONSE, together > 1)
    assert batch.tokens == sum(row.length for row in rollout.rows)
    return kept.bytes, batch


@pytest.mark.parametrize("modules", ["all", "attention"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "samples"), [("llama", 1), ("llama", 3), ("gpt_neo", 2)])
def test_activations_are_what_the_forward_pass_keeps(
    family: str, samples: int, dtype: torch.dtype, modules: str
) -> None:
    base = BASES[family]()
    base.model.to(dtype)
    lora = LoraConfig(r=5, modules=modules, top_layers=2)
    kept, batch = forward_pass(base, lora, samples)
    shape = read_shape(base.model.config.to_dict())
    assert activations(shape, lora, batch, 2, dtype.itemsize, checkpointing=False) == kept


@pytest.mark.parametrize(
    ("family", "samples", "dtype"),
    [
        ("llama", 1, torch.float32),
        ("llama", 3, torch.float32),
        ("llama", 1, torch.bfloat16),
        ("llama", 3, torch.bfloat16),
        ("gpt_neo", 2, torch.float32),
    ],
)
def test_weights_that_train_keep_their_inputs(family: str, samples: int, dtype: torch.dtype) -> None:
    base = BASES[family]()
    base.model.to(dtype)
    full, shape = FullConfig(top_layers=2), read_shape(base.model.config.to_dict())
    kept, batch = forward_pass(base, full, samples)
    # Autocast's bfloat16 copies of the two layers' weights are kept too, and are a part of their own.
    copies = 2 * 2 * shape.layer_weights if dtype == torch.bfloat16 else 0
    assert activations(shape, full, batch, 2, dtype.itemsize, checkpointing=False) + copies == kept


def test_checkpointing_keeps_inputs_and_one_layers_activations() -> None:
    shape, lora = read_shape(tiny_llama().model.config.to_dict()), LoraConfig(r=5)
    batch = MicroBatch(rows=2, length=10, responses=12, packed=False)
    one, two, three = (activations(shape, lora, batch, layers, 4, checkpointing=False) for layers in (1, 2, 3))
    layer, norm = three - two, 2 * 10 * (4 * 32 + 4)
    assert two - one == layer
    # Three inputs of [2, 10, 32] float32, a whole layer, and what comes once.
    once = one - layer + norm
    assert activations(shape, lora, batch, 3, 4, checkpointing=True) == 3 * 2 * 10 * 32 * 4 + layer + once
