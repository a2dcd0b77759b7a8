import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlhf.contracts.jobs import FullConfig, LoraConfig
from rlhf.lm.loading import LanguageModel
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.ppo.actor import Actor, TokenOutputs
from services.trainer.ppo.collate import Rollout, collate
from tests.unit.ppo.reference import sequence_outputs
from tests.unit.ppo.stand_in import VOCABULARY, random_batch, tiny_gpt_neo, tiny_llama

TAU = 0.7
FAMILIES = pytest.mark.parametrize("make", [tiny_llama, tiny_gpt_neo])
KINDS = pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])


def fresh_actor(base: LanguageModel, top_layers: int | None = 2, *, full: bool = False, seed: int = 1) -> Actor:
    trained = FullConfig(top_layers=top_layers) if full else LoraConfig(r=4, alpha=8.0, top_layers=top_layers)
    return Actor(base, trained, temperature=TAU, seed=seed)


def trained_actor(base: LanguageModel, top_layers: int | None = 2, *, full: bool = False) -> Actor:
    """An actor whose adapter or weights and whose value head have moved from where they began."""
    actor = fresh_actor(base, top_layers, full=full)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in actor.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return actor


def as_grid(outputs: TokenOutputs, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, values and entropies as [B, T]."""
    grids = [torch.zeros(rollout.response_ids.shape) for _ in range(3)]
    for grid, values in zip(grids, (outputs.logprobs, outputs.values, outputs.entropy), strict=True):
        grid[outputs.sample, outputs.offset] = values
    return grids[0], grids[1], grids[2]


def run(actor: Actor, rollout: Rollout, *, reference: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    features = actor.lower_features(rollout.rows)
    return as_grid(actor(rollout.rows, features, rollout.response_ids, reference=reference), rollout)


def alone(actor: Actor, batch: ExperienceBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The same by transformers' own forward pass, one sequence at a time, without padding, mask or split."""
    width = max(len(r) for r in batch.response_ids)
    grids = [torch.zeros(len(batch), width) for _ in range(3)]
    for i, (prompt, response) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        outputs = sequence_outputs(actor, prompt.tolist(), response.tolist())
        for grid, values in zip(grids, outputs, strict=True):
            grid[i, : len(response)] = values
    return grids[0], grids[1], grids[2]


def gradients(actor: Actor, logprobs: Tensor, values: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss that weighs every token differently."""
    actor.zero_grad()
    weights = torch.arange(1.0, logprobs.numel() + 1).reshape(logprobs.shape) / logprobs.numel()
    ((logprobs * weights).sum() + (values * weights.flip(0)).sum()).backward()
    return {name: parameter.grad.clone() for name, parameter in actor.trainable().items()}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@FAMILIES
@KINDS
@pytest.mark.parametrize("top_layers", [1, 2, None])
def test_rows_give_what_each_sequence_gives_alone(
    make: Callable[[], LanguageModel], full: bool, top_layers: int | None
) -> None:
    actor, batch = trained_actor(make(), top_layers, full=full), random_batch(3)
    expected = alone(actor, batch)
    expected_gradients = gradients(actor, *expected[:2])
    assert all(float(g.abs().max()) > 0 for g in expected_gradients.values())
    # GPT-Neo's windows do not allow packing; the learner asks the stack.
    for row_tokens in (None, 20, 1000) if actor.stack.packs else (None,):
        rollout = collate([batch], row_tokens=row_tokens)
        got = run(actor, rollout)
        for grid, wanted in zip(got, expected, strict=True):
            torch.testing.assert_close(grid, wanted.detach(), rtol=1e-4, atol=2e-5)
        assert_same(gradients(actor, *got[:2]), expected_gradients)


def test_only_families_without_windows_pack() -> None:
    assert trained_actor(tiny_llama()).stack.packs
    assert not trained_actor(tiny_gpt_neo()).stack.packs


@FAMILIES
@KINDS
def test_the_reference_is_the_base_model(make: Callable[[], LanguageModel], full: bool) -> None:
    base, batch = make(), random_batch(4)
    untouched = fresh_actor(base, seed=9)
    expected = [grid.detach() for grid in alone(untouched, batch)]
    untouched.detach()
    actor = trained_actor(base, full=full)
    rollout = collate([batch], row_tokens=1000 if actor.stack.packs else None)
    reference, _, entropy = run(actor, rollout, reference=True)
    torch.testing.assert_close(reference, expected[0], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(entropy, expected[2], rtol=1e-4, atol=2e-5)
    # The policy is another one by now, before and after the reference pass.
    assert float((run(actor, rollout)[0] - reference).detach().abs().max()) > 0.1


@KINDS
def test_a_reference_pass_leaves_the_policy_on_and_trainable(full: bool) -> None:
    actor, rollout = trained_actor(tiny_llama(), full=full), collate([random_batch(5)], row_tokens=1000)
    names, before = list(actor.trainable()), run(actor, rollout)[0]
    run(actor, rollout, reference=True)
    assert torch.equal(run(actor, rollout)[0], before)
    assert list(actor.trainable()) == names
    assert all(parameter.requires_grad for parameter in actor.trainable().values())


@KINDS
def test_a_fresh_actor_is_the_reference_and_values_nothing(full: bool) -> None:
    actor = fresh_actor(tiny_llama(), full=full)
    rollout = collate([random_batch(6)], row_tokens=1000)
    logprobs, values, _ = run(actor, rollout)
    assert torch.equal(logprobs, run(actor, rollout, reference=True)[0])
    assert not values.any()


def test_only_the_upper_layers_and_the_value_head_are_trainable() -> None:
    actor = Actor(tiny_llama(), LoraConfig(r=4, top_layers=1), temperature=1.0, seed=1)
    layers = {name.split("layers.")[1][0] for name in actor.trainable() if "layers." in name}
    assert layers == {"2"}
    # 7 linear modules with two matrices each, weight and bias of the value head
    assert len(actor.trainable()) == 7 * 2 + 2
    optimised = {id(p) for p in actor.trainable().values()}
    assert {id(p) for p in actor.parameters() if p.requires_grad} == optimised


@pytest.mark.parametrize(("make", "output"), [(tiny_llama, "o_proj"), (tiny_gpt_neo, "out_proj")])
def test_attention_alone_is_adapted_where_asked(make: Callable[[], LanguageModel], output: str) -> None:
    actor = Actor(make(), LoraConfig(r=4, modules="attention"), temperature=1.0, seed=0)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in actor.trainable() if "lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", output}


def test_the_adapter_depends_on_its_seed_and_on_nothing_else() -> None:
    def start(seed: int) -> Tensor:
        torch.rand(3)  # moves the global generator
        actor = Actor(tiny_llama(), LoraConfig(r=4, top_layers=1), temperature=1.0, seed=seed)
        return next(iter(actor.trainable().values())).detach()

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


@FAMILIES
def test_detaching_gives_the_base_model_back_bit_for_bit(make: Callable[[], LanguageModel]) -> None:
    base = make()
    ids = torch.arange(12)[None]
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    modules = [(name, type(module)) for name, module in base.model.named_modules()]
    logits = base.model(input_ids=ids).logits
    # Twice: a worker runs one job after the other on the same base model.
    for _ in range(2):
        actor = trained_actor(base)
        assert not torch.equal(base.model(input_ids=ids).logits, logits)
        actor.detach()
        assert torch.equal(base.model(input_ids=ids).logits, logits)
        after = base.model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert [(name, type(module)) for name, module in base.model.named_modules()] == modules
        assert not any(parameter.requires_grad for parameter in base.model.parameters())


# peft's own loading reads an attribute that transformers 5 renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@FAMILIES
def test_a_saved_adapter_loaded_by_peft_is_the_policy(make: Callable[[], LanguageModel], tmp_path: Path) -> None:
    actor, ids = trained_actor(make()), torch.arange(12)[None]
    actor.trained.save(tmp_path, actor.trained.weights())
    expected = actor.trained.peft_model(input_ids=ids).logits
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    loaded = peft.PeftModel.from_pretrained(make().model, str(tmp_path))
    assert torch.equal(loaded(input_ids=ids).logits, expected)
    # The value head stays with the learner.
    assert all("lora_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))


def test_a_saved_adapter_names_the_model_and_has_one_content(tmp_path: Path) -> None:
    actor = trained_actor(tiny_llama())
    actor.trained.save(tmp_path, actor.trained.weights())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["layers_to_transform"] == [1, 2]


def test_too_many_layers_are_refused_before_the_model_is_touched() -> None:
    base = tiny_llama()
    with pytest.raises(ValueError, match=r"lora.top_layers=4 exceeds the 3 layers of tiny; lower it to 3 or less"):
        Actor(base, LoraConfig(top_layers=4), temperature=1.0, seed=0)
    assert not any("lora" in name for name, _ in base.model.named_modules())


def test_probabilities_sum_to_one_at_the_temperature() -> None:
    # One-token responses with every id of the vocabulary: all of one distribution.
    actor = trained_actor(tiny_llama())
    batch = random_batch(7, prompts=1, samples=VOCABULARY, longest=1)
    for i, ids in enumerate(batch.response_ids):
        ids[0] = i
    logprobs, _, entropy = run(actor, collate([batch], row_tokens=1000))
    torch.testing.assert_close(logprobs.exp().sum(), torch.tensor(1.0))
    torch.testing.assert_close(entropy[0, 0], -(logprobs.exp() * logprobs).sum())
