import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.contracts.jobs import LoraConfig, PpoUpdateConfig
from rlhf.lm.loading import LanguageModel
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import Rollout, collate
from services.trainer.ppo.update import RatioCheckFailed, Targets, UpdateStats, shuffled_minibatches, update_policy
from tests.unit.ppo.stand_in import make_batch, random_batch, tiny_gpt_neo, tiny_llama
from tests.unit.trainer.estimate.test_activations import Kept

PROMPTS = 6


class Setting:
    """An actor with a rollout and targets whose old log-probabilities are the actor's own."""

    def __init__(
        self, *, prompts: int = PROMPTS, row_tokens: int | None = 1000, base: LanguageModel | None = None
    ) -> None:
        self.actor = Actor(base or tiny_llama(), LoraConfig(r=4, alpha=8.0, top_layers=2), temperature=0.7, seed=1)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.actor.trainable().values():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        self.rollout: Rollout = collate([random_batch(2, prompts=prompts)], row_tokens=row_tokens)
        self.features = self.actor.lower_features(self.rollout.rows)
        with torch.no_grad():
            outputs = self.actor(self.rollout.rows, self.features, self.rollout.response_ids)
        self.old, values = torch.zeros(2, *self.rollout.response_ids.shape).unbind()
        self.old[outputs.sample, outputs.offset] = outputs.logprobs
        values[outputs.sample, outputs.offset] = outputs.values
        mask = self.rollout.response_mask
        advantages = torch.where(mask, torch.randn(mask.shape, generator=generator), 0.0)
        self.targets = Targets(self.old, values, advantages, torch.where(mask, advantages + values, 0.0))

    def update(
        self, *, rate: float = 0.0, targets: Targets | None = None, value_only: bool = False, **config: Any
    ) -> UpdateStats:
        settings = PpoUpdateConfig(**{"epochs": 1, "minibatches": 1, "max_grad_norm": 1e9, **config})
        optimizer = torch.optim.SGD(self.actor.trainable().values(), lr=rate)
        chosen = targets or self.targets
        return update_policy(
            self.actor,
            optimizer,
            self.rollout,
            self.features,
            chosen,
            settings,
            shuffle_seed=3,
            value_only=value_only,
        )

    def gradients(self) -> dict[str, Tensor]:
        return {name: parameter.grad.clone() for name, parameter in self.actor.trainable().items()}

    def weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.actor.trainable().items()}


@pytest.mark.parametrize("row_tokens", [None, 20, 1000])
@pytest.mark.parametrize("budget", [64, 100, 200])
def test_micro_batches_give_the_gradient_of_the_whole(row_tokens: int | None, budget: int) -> None:
    whole = Setting()
    expected = whole.update(tokens_per_microbatch=100_000).means()
    gradients = whole.gradients()
    setting = Setting(row_tokens=row_tokens)
    means = setting.update(tokens_per_microbatch=budget).means()
    assert means == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for name, gradient in setting.gradients().items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-4, atol=1e-6)
        assert float(gradient.abs().max()) > 1e-5


@pytest.mark.parametrize("base", [tiny_llama, tiny_gpt_neo])
def test_gradient_checkpointing_changes_no_gradient_and_keeps_less(base: Callable[[], LanguageModel]) -> None:
    plain, frugal = Setting(base=base()), Setting(base=base())
    kept = [Kept(setting.actor) for setting in (plain, frugal)]
    for setting, counter, on in zip((plain, frugal), kept, (False, True), strict=True):
        with torch.autograd.graph.saved_tensors_hooks(counter, lambda tensor: tensor):
            setting.update(gradient_checkpointing=on)
    assert kept[1].bytes < kept[0].bytes
    expected = plain.gradients()
    assert all(torch.equal(gradient, expected[name]) for name, gradient in frugal.gradients().items())
    assert all(float(gradient.abs().max()) > 1e-5 for gradient in expected.values())


def test_minibatches_of_unequal_token_counts_weigh_every_token_of_their_own_alike() -> None:
    # One row a minibatch: the mean over that row's tokens, whatever the others hold.
    setting = Setting()
    row = setting.rollout.rows[0]
    advantages = torch.zeros_like(setting.old)
    advantages[row.sample, row.offset] = 3.0
    targets = Targets(setting.old, setting.targets.old_values, advantages, setting.targets.returns)
    stats = setting.update(targets=targets, minibatches=PROMPTS, value_coefficient=0.0, importance_cap=1.0)
    # With equal weights: -3·mean(w) in that minibatch and 0 in the others.
    weights = (setting.old - setting.rollout.behavior_logprobs).exp().clamp_max(1.0)[row.sample, row.offset]
    assert stats.updates == PROMPTS
    assert stats.means()["policy_loss"] == pytest.approx(-3 * float(weights.mean()) / PROMPTS, rel=1e-5)


def test_the_first_ratio_is_1_and_later_ones_move() -> None:
    setting = Setting()
    stats = setting.update(rate=0.5, epochs=3, minibatches=2)
    assert stats.ratio_first_minibatch == pytest.approx(1, abs=1e-5)
    assert (stats.updates, stats.epochs) == (6, 3)
    assert stats.means()["log_ratio"] > 1e-3


@pytest.mark.parametrize("off", ["shifted", "temperature", "noise", "other weights"])
def test_old_logprobs_of_something_else_are_found_out(off: str) -> None:
    setting = Setting()
    old = setting.old.clone()
    if off == "shifted":
        old[:, 1:] = setting.old[:, :-1]
    elif off == "temperature":
        setting.actor.temperature = 0.75
    elif off == "noise":
        old += 2e-3
    else:
        with torch.no_grad():
            next(iter(setting.actor.trainable().values())).mul_(1.1)
    before = setting.weights()
    targets = Targets(old, setting.targets.old_values, setting.targets.advantages, setting.targets.returns)
    with pytest.raises(RatioCheckFailed, match=r"must be below 0\.001.*Look for dropout left on, a shifted"):
        setting.update(rate=0.1, targets=targets)
    assert all(torch.equal(tensor, before[name]) for name, tensor in setting.weights().items())


def test_dropout_left_on_is_found_out() -> None:
    setting = Setting()
    for module in setting.actor.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(0.5)
    setting.actor.train()
    with pytest.raises(RatioCheckFailed):
        setting.update()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_never_reach_the_weights(value: float) -> None:
    setting = Setting()
    before = setting.weights()
    returns = setting.targets.returns.clone()
    returns[0, 0] = value
    advantages = setting.targets.advantages.clone()
    advantages[0, 0] = value
    stats = setting.update(rate=0.1, targets=Targets(setting.old, setting.targets.old_values, advantages, returns))
    assert all(torch.equal(tensor, before[name]) for name, tensor in setting.weights().items())
    # The watchdogs see it.
    assert not math.isfinite(stats.means()["policy_loss"])


def test_gradients_are_clipped_together() -> None:
    setting = Setting()
    setting.update()
    free = torch.cat([g.flatten() for g in setting.gradients().values()])
    norm = float(free.norm())
    stats = setting.update(max_grad_norm=norm / 4)
    clipped = torch.cat([g.flatten() for g in setting.gradients().values()])
    assert stats.means()["grad_norm"] == pytest.approx(norm, rel=1e-5)
    torch.testing.assert_close(clipped, free / 4, rtol=1e-3, atol=1e-8)


def test_epochs_stop_early_when_the_kl_to_the_old_policy_passes_its_limit() -> None:
    assert Setting().update(rate=1.0, epochs=5, minibatches=2).epochs == 5
    # The first epoch's second minibatch already sees another policy than the old one.
    assert Setting().update(rate=1.0, epochs=5, minibatches=2, max_kl_per_epoch=1e-9).epochs == 1
    assert Setting().update(rate=1.0, epochs=5, minibatches=2, max_kl_per_epoch=1e9).epochs == 5


def test_the_kl_limit_is_a_mean_over_the_minibatches_that_there_are() -> None:
    # One row makes one minibatch, though eight are asked for: the mean is over one.
    free = Setting(prompts=1).update(rate=0.3, epochs=2, minibatches=8)
    assert free.updates == 2
    # Epoch 1 begins at the old policy (KL 0); epoch 2 sees all of what `free` read on average over two.
    limit = free.means()["approx_kl"] * 2 * 0.9
    assert Setting(prompts=1).update(rate=0.3, epochs=4, minibatches=8, max_kl_per_epoch=limit).epochs == 2


@pytest.mark.parametrize(("rows", "minibatches"), [(8, 2), (7, 3), (3, 8), (1, 1)])
def test_an_epoch_has_every_row_once_in_even_minibatches(rows: int, minibatches: int) -> None:
    parts = list(shuffled_minibatches(rows, minibatches, seed=5, epoch=0))
    assert sorted(row for part in parts for row in part) == list(range(rows))
    assert len(parts) == min(rows, minibatches)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_epoch_and_seed_shuffles_anew_and_repeatably() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(row for part in shuffled_minibatches(20, 4, seed, epoch) for row in part)

    assert len({order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    assert order(1, 2) == order(1, 2)
    # The largest seed that the learner derives.
    assert sorted(order(2**40 - 1, 63)) == list(range(20))


def test_a_lone_token_learns() -> None:
    setting = Setting()
    setting.rollout = collate([make_batch([[1]], [[[2]]])], row_tokens=100)
    setting.features = setting.actor.lower_features(setting.rollout.rows)
    with torch.no_grad():
        old = setting.actor(setting.rollout.rows, setting.features, setting.rollout.response_ids).logprobs[None]
    ones = torch.ones(1, 1)
    before = setting.weights()
    setting.update(rate=0.1, targets=Targets(old, 0 * ones, ones, ones))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in setting.weights().items())


def test_the_value_warm_up_moves_the_value_head_alone() -> None:
    setting, ordinary = Setting(), Setting()
    before = setting.weights()
    setting.update(rate=0.1, value_only=True, epochs=2, minibatches=2)
    moved = {name for name, tensor in setting.weights().items() if not torch.equal(tensor, before[name])}
    assert moved == {"value_head.weight", "value_head.bias"}
    # The head learns as it does beside the policy: its first gradient is the same.
    setting, _ = Setting(), ordinary.update()
    setting.update(value_only=True)
    torch.testing.assert_close(setting.actor.value_head.weight.grad, ordinary.actor.value_head.weight.grad)
