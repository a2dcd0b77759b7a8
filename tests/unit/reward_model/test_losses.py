"""The losses by hand."""

import pytest
import torch

from services.trainer.reward_model.losses import bradley_terry_loss, centring_loss


def loss(chosen: float, rejected: float, **options: float) -> float:
    margin = options.pop("margin", 0.0)
    return float(bradley_terry_loss(torch.tensor(chosen), torch.tensor(rejected), margin, **options))


def test_by_hand() -> None:
    # -log σ(0) = log 2; -log σ(1) = log(1 + e⁻¹) = 0.313262; -log σ(-1) = 1 + 0.313262
    assert loss(0.5, 0.5) == pytest.approx(0.693147, abs=1e-6)
    assert loss(2.0, 1.0) == pytest.approx(0.313262, abs=1e-6)
    assert loss(1.0, 2.0) == pytest.approx(1.313262, abs=1e-6)


def test_a_margin_asks_for_more_separation() -> None:
    # Δ = 2 - 1 - 1 = 0: a separation that is just the margin is worth no more than equal scores without one.
    assert loss(2.0, 1.0, margin=1.0) == pytest.approx(0.693147, abs=1e-6)
    assert loss(2.0, 1.0, margin=0.5) > loss(2.0, 1.0)


def test_label_smoothing_by_hand() -> None:
    # 0.9 x 0.313262 + 0.1 x 1.313262 = 0.413262
    assert loss(2.0, 1.0, label_smoothing=0.1) == pytest.approx(0.413262, abs=1e-6)


def test_label_smoothing_stops_the_race_for_certainty() -> None:
    # The minimum lies where σ(Δ) = 1 - ε = 0.9: Δ = log 9 = 2.197
    here = loss(2.197, 0.0, label_smoothing=0.1)
    assert here < loss(2.0, 0.0, label_smoothing=0.1)
    assert here < loss(2.4, 0.0, label_smoothing=0.1)


def test_extreme_scores_stay_finite() -> None:
    assert loss(0.0, 1000.0) == pytest.approx(1000.0)
    assert loss(1000.0, 0.0, label_smoothing=0.1) == pytest.approx(100.0)


def test_margins_and_members_broadcast() -> None:
    chosen, rejected = torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    # Δ with margins 0 and 1: member 0: 1, -2; member 1: 0, 0
    expected = torch.tensor([[0.313262, 2.126928], [0.693147, 0.693147]])
    torch.testing.assert_close(bradley_terry_loss(chosen, rejected, torch.tensor([0.0, 1.0])), expected)


def test_centring_by_hand() -> None:
    # (1 + 2)² = 9; (1 - 1)² = 0
    result = centring_loss(torch.tensor([1.0, 1.0]), torch.tensor([2.0, -1.0]))
    assert result.tolist() == [9.0, 0.0]
