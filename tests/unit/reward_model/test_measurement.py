"""What is measured, on votes small enough to follow by hand."""

from __future__ import annotations

import pytest
import torch

from rlhf.lm.exchanges import Exchange
from services.trainer.reward_model.data import EncodedPairs
from services.trainer.reward_model.measurement import Votes, measure, standardised_votes


def make_pairs(*rows: tuple[int, int]) -> EncodedPairs:
    chosen, rejected = zip(*rows, strict=True)
    return EncodedPairs(torch.tensor(chosen), torch.tensor(rejected), torch.zeros(len(rows)))


def test_votes_are_in_units_of_each_members_reference() -> None:
    votes = standardised_votes(torch.tensor([[1.0, -2.0], [3.0, 3.0]]), torch.tensor([0.5, 3.0]))
    assert votes.members.tolist() == [[2.0, -4.0], [1.0, 1.0]]
    assert votes.mean.tolist() == [1.5, -1.5]
    # Population: |2 - 1| / 2 and |-4 - 1| / 2
    assert votes.score_spread.tolist() == [0.5, 2.5]


def test_disagreement_is_about_the_vote_and_not_the_size_of_the_scores() -> None:
    votes = Votes(torch.tensor([[8.0, 0.5], [12.0, -0.5]]))
    sure, torn = votes.disagreement(temperature=1.0)
    # σ(8) and σ(12) are both 1 to three digits; σ(±0.5) = 0.622459, 0.377541: half their distance is 0.122459
    assert sure < 1e-3
    assert torn == pytest.approx(0.122459, abs=1e-6)
    assert votes.score_spread.tolist() == [2.0, 0.5]


def test_figures_by_hand() -> None:
    # Response lengths in tokens: 2, 3, 4, 5
    exchanges = [Exchange((1,), (9,) * length, truncated=False) for length in (2, 3, 4, 5)]
    figures = measure(
        Votes(torch.tensor([[1.0, 1.0, 1.0, -1.0]])),
        Votes(torch.tensor([[2.0, -1.0, 3.0], [4.0, 0.5, -1.0]])),
        exchanges,
        train=make_pairs((0, 1), (0, 2), (3, 0)),  # the shorter is chosen twice of three times
        heldout=make_pairs((0, 1), (1, 0), (2, 3)),  # then "shorter wins" is right, wrong, right
    )
    # Means over members 3, -0.25, 1: two of three right. Members: + - + and + + -
    assert figures["accuracy_ensemble"] == pytest.approx(2 / 3)
    assert figures["accuracy_members"] == pytest.approx([2 / 3, 2 / 3])
    assert figures["accuracy_length_baseline"] == pytest.approx(2 / 3)
    assert figures["accuracy_validation"] == 0.75
    # Three of four right at distance 1: T = 1 / log 3
    assert figures["temperature"] == pytest.approx(0.910239, abs=1e-4)
    assert (figures["members"], figures["train_pairs"], figures["eval_pairs"]) == (2, 3, 3)
    # The one mistake is the closest vote.
    assert figures["auroc_closeness"] == 1.0
    # Spreads 1, 0.75, 2: the mistake has the smallest.
    assert figures["auroc_score_spread"] == 0.0
    # At T = 0.910239 the votes' probabilities are (0.900, 0.988), (0.250, 0.634), (0.964, 0.250): disagreements 0.044,
    # 0.192, 0.357. The mistake stands above one of two right votes.
    assert figures["auroc_uncertainty"] == 0.5
