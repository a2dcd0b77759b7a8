"""What is measured, on votes small enough to follow by hand."""

from __future__ import annotations

import pytest
import torch

from rlhf.lm.exchanges import Exchange
from services.trainer.reward_model.data import EncodedPairs
from services.trainer.reward_model.measurement import Votes, describe_scores, measure, standardised_votes


def make_pairs(*rows: tuple[int, int]) -> EncodedPairs:
    chosen, rejected = zip(*rows, strict=True)
    each = torch.zeros(len(rows))
    return EncodedPairs(torch.tensor(chosen), torch.tensor(rejected), each, torch.arange(len(rows)), each.bool())


def test_votes_are_in_units_of_each_members_reference() -> None:
    votes = standardised_votes(torch.tensor([[1.0, -2.0], [3.0, 3.0]]), torch.tensor([0.5, 3.0]))
    assert votes.members.tolist() == [[2.0, -4.0], [1.0, 1.0]]
    assert votes.mean.tolist() == [1.5, -1.5]
    # Population: |2 - 1| / 2 and |-4 - 1| / 2
    assert votes.score_spread.tolist() == [0.5, 2.5]


def test_each_members_probability_is_at_its_own_temperature() -> None:
    votes = Votes(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    # σ(1 / 0.5) = 0.880797, σ(-2 / 0.5) = 0.017986; σ(3 / 3) = 0.731059, σ(0) = 0.5
    first, second = votes.probabilities([0.5, 3.0])
    assert first == pytest.approx([0.880797, 0.017986], abs=1e-6)
    assert second == pytest.approx([0.731059, 0.5], abs=1e-6)


def test_figures_by_hand() -> None:
    # Response lengths in tokens: 2, 3, 4, 5
    exchanges = [Exchange((1,), (9,) * length, truncated=False) for length in (2, 3, 4, 5)]
    figures = measure(
        Votes(torch.tensor([[1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, -1.0]])),
        Votes(torch.tensor([[2.0, -1.0, 3.0], [4.0, 0.5, -1.0]])),
        exchanges,
        train=make_pairs((0, 1), (0, 2), (3, 0)),  # the shorter is chosen twice of three times
        heldout=make_pairs((0, 1), (1, 0), (2, 3)),  # then "shorter wins" is right, wrong, right
    )
    # Means over members 3, -0.25, 1: two of three right. Members: + - + and + + -
    assert figures["accuracy_ensemble"] == pytest.approx(2 / 3)
    assert figures["accuracy_members"] == pytest.approx([2 / 3, 2 / 3])
    assert figures["accuracy_length_baseline"] == pytest.approx(2 / 3)
    assert figures["accuracy_jury"] == 0.75
    # Three of four right at distance 1: T = 1 / log 3
    assert figures["temperature"] == pytest.approx(0.910239, abs=1e-4)
    assert (figures["members"], figures["train_pairs"], figures["eval_pairs"]) == (2, 3, 3)
    # The one mistake is the closest vote.
    assert figures["auroc_closeness"] == 1.0
    # Spreads 1, 0.75, 2: the mistake has the smallest.
    assert figures["auroc_score_spread"] == 0.0
    # At T = 0.910239 the members' probabilities are (0.900, 0.988), (0.250, 0.634), (0.964, 0.250), their means 0.944,
    # 0.442, 0.607: the mistake is the most uncertain. Less the members' own entropies, as 0.686 - (0.562 + 0.657) / 2,
    # that is 0.013, 0.077, 0.311: it stands above one of two right votes.
    assert figures["auroc_uncertainty"] == 1.0
    assert figures["auroc_disagreement"] == 0.5
    # From the most certain, one each: right, right, wrong.
    assert figures["accuracy_by_uncertainty_quartile"] == [1.0, 1.0, 0.0]
    # p = 2/3, n = 3: as the ensemble's
    assert figures["accuracy_members_ci95"] == [figures["accuracy_ensemble_ci95"]] * 2


def test_the_distribution_of_scores_by_hand() -> None:
    # Means over members 2, -1, 4; columns 0 and 2 are chosen, 1 is rejected twice.
    told = describe_scores(torch.tensor([[1.0, -1.0, 4.0], [3.0, -1.0, 4.0]]), [0, 2], [1, 1])
    assert (told["all"]["mean"], told["all"]["p50"]) == (pytest.approx(5 / 3), 2.0)
    assert (told["chosen"]["mean"], told["chosen"]["std"]) == (3.0, 1.0)
    assert (told["rejected"]["p05"], told["rejected"]["p95"]) == (-1.0, -1.0)
    # Deviations 1, 0, 0
    assert (told["uncertainty"]["mean"], told["uncertainty"]["p50"]) == (pytest.approx(1 / 3), 0.0)
