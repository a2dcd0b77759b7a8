"""Heads fitted alone: at the root of the derivative; resamples are weights; new pairs choose the penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
import torch

from rlhf.contracts.jobs import PreferencePair, RewardModelJobConfig
from rlhf.lm.ensemble import RewardEnsemble
from services.trainer.reward_model import heads
from services.trainer.reward_model.bags import member_orders, out_of_bag
from services.trainer.reward_model.data import EncodedPairs, Role
from services.trainer.reward_model.heads import fit_heads


@dataclass
class Heads:
    heads: torch.Tensor
    bias: torch.Tensor


def pairs_of(chosen: range, rejected: range) -> EncodedPairs:
    each = torch.zeros(len(chosen))
    return EncodedPairs(torch.tensor(chosen), torch.tensor(rejected), each, torch.arange(len(chosen)), each.bool())


def config_of(**changes: float) -> RewardModelJobConfig:
    pairs = [PreferencePair(prompt="a", chosen="b", rejected="c")] * 2
    return RewardModelJobConfig(kind="reward_model", pairs=pairs, **changes)


def fitted(features: torch.Tensor, orders: torch.Tensor, *, train: int, **changes: float) -> tuple[Heads, float]:
    """Pair i is features 2i against 2i + 1; the first `train` are learned from."""
    ensemble = Heads(torch.zeros(len(orders), features.shape[1]), torch.zeros(len(orders)))
    count = len(features)
    roles: dict[Role, EncodedPairs] = {
        "train": pairs_of(range(0, 2 * train, 2), range(1, 2 * train, 2)),
        "validation": pairs_of(range(2 * train, count, 2), range(2 * train + 1, count, 2)),
    }
    config, judges = config_of(centring=0.0, **changes), out_of_bag(orders, roles["train"])
    penalty, _ = fit_heads(cast(RewardEnsemble, ensemble), features, roles, orders, judges, config)
    return ensemble, penalty


def test_one_feature_is_at_the_root_of_its_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    # Differences of 1: the derivative of softplus(-w) + λw² is -σ(-w) + 2λw, which is 0 where 2λw·(1 + e^w) = 1.
    monkeypatch.setattr(heads, "PENALTIES", (0.25,))
    ensemble, penalty = fitted(torch.tensor([[1.0], [0.0]] * 4), torch.zeros(2, 3, dtype=torch.int64), train=3)
    assert penalty == 0.25
    for w in ensemble.heads[:, 0].double().tolist():
        assert 0.5 * w * (1 + np.exp(w)) == pytest.approx(1, abs=1e-3)


def test_a_pair_that_is_drawn_twice_counts_twice() -> None:
    features = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    drawn, _ = fitted(features, torch.tensor([[0, 0, 1, 2]]), train=4)
    # The same four pairs, written down.
    repeated = torch.cat([features[[0, 1, 0, 1, 2, 3, 4, 5]], features[8:]])
    written, _ = fitted(repeated, torch.tensor([[0, 1, 2, 3]]), train=4)
    torch.testing.assert_close(drawn.heads, written.heads, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("signal", "least", "most"), [(0.0, 1.0, 10.0), (10.0, 0.01, 0.01)])
def test_validation_pairs_choose_the_penalty(signal: float, least: float, most: float) -> None:
    """Noise asks for a strong one, a feature that is always right for the weakest."""
    features = torch.randn(400, 30, generator=torch.Generator().manual_seed(2))
    features[::2, 0] += signal
    _, penalty = fitted(features, torch.arange(60)[None], train=60)
    assert least <= penalty <= most


def test_pairs_out_of_the_bag_outvote_a_few_validation_pairs() -> None:
    features = torch.randn(402, 30, generator=torch.Generator().manual_seed(2))
    features[::2, 0] += 10.0
    features[400:] = features[[1, 0]]  # the one validation pair contradicts the rule
    orders = member_orders(torch.arange(200), members=3, seed=0, epoch=0)
    ensemble, penalty = fitted(features, orders, train=200)
    assert penalty < 1.0
    assert bool((ensemble.heads[:, 0] > 0).all())
