"""Resamples of whole prompts, and who may judge what."""

from __future__ import annotations

import pytest
import torch

from services.trainer.reward_model.bags import (
    judged_first,
    jury_of_heads,
    jury_votes,
    mean_votes,
    member_orders,
    out_of_bag,
)
from services.trainer.reward_model.data import EncodedPairs

NAN = float("nan")


def make_pairs(prompts: list[int], *, spoilt: tuple[int, ...] = ()) -> EncodedPairs:
    """Pair i is exchange 2i against 2i + 1."""
    count = len(prompts)
    marks = torch.isin(torch.arange(count), torch.tensor(spoilt, dtype=torch.int64))
    chosen = torch.arange(0, 2 * count, 2)
    return EncodedPairs(chosen, chosen + 1, torch.zeros(count), torch.tensor(prompts), marks)


def test_members_see_their_own_resample_in_their_own_order() -> None:
    first, second = (member_orders(torch.arange(200), members=2, seed=1, epoch=epoch) for epoch in (0, 1))
    assert torch.equal(first, member_orders(torch.arange(200), members=2, seed=1, epoch=0))
    assert not torch.equal(first, second)
    # The resample stays, its order changes.
    assert torch.equal(first.sort(dim=1).values, second.sort(dim=1).values)
    assert not torch.equal(first[0].sort().values, first[1].sort().values)
    # With replacement, 1 - 1/e = 63 % of the pairs are in a resample of their number.
    assert 0.5 < len(first[0].unique()) / 200 < 0.75


def test_a_prompt_is_drawn_whole() -> None:
    # Prompts 7, 3, 9 of 40, 40 and 41 pairs, in turns: all but the last prompt that is drawn come in full.
    prompts = torch.tensor([7, 3, 9] * 40 + [9])
    for order in member_orders(prompts, members=8, seed=0, epoch=0):
        times = torch.bincount(order, minlength=121)
        uneven = [p for p in (7, 3, 9) if len(times[prompts == p].unique()) > 1]
        assert len(order) == 121
        assert len(uneven) <= 1


def test_a_member_judges_what_it_knows_nothing_of() -> None:
    # Pairs 0 and 1 share a prompt; pair 4 is spoilt.
    train = make_pairs([5, 5, 6, 8, 9], spoilt=(4,))
    judges = out_of_bag(torch.tensor([[0, 0, 2, 2, 0], [3, 3, 3, 3, 3]]), train)
    assert judges.int().tolist() == [[0, 0, 0, 1, 0], [1, 1, 1, 0, 0]]


def test_votes_are_those_of_members_that_may_judge() -> None:
    judges = torch.tensor([[True, False, False], [True, True, False]])
    votes = jury_votes(torch.tensor([[1.0, 2.0, 3.0], [5.0, -6.0, 7.0]]), judges, torch.tensor([[1.0], [2.0]]))
    # Nobody may judge the third training pair.
    torch.testing.assert_close(votes, torch.tensor([[1.0, NAN, 1.0], [5.0, -6.0, 2.0]]), equal_nan=True)
    assert mean_votes(votes).tolist() == [3.0, -6.0, 1.5]


def test_heads_vote_by_the_differences_of_features() -> None:
    # Differences 2 and -1 of training pairs, 3 of the validation pair, times heads 1 and 10
    features = torch.tensor([[2.0], [0.0], [0.0], [1.0], [3.0], [0.0]])
    train, validation = make_pairs([0, 1]), make_pairs([2])
    held = EncodedPairs(torch.tensor([4]), torch.tensor([5]), validation.margin, validation.prompt, validation.spoilt)
    votes = jury_of_heads(
        features,
        torch.tensor([[1.0], [10.0]]),
        torch.tensor([[True, True], [False, True]]),
        {"train": train, "validation": held},
    )
    torch.testing.assert_close(votes, torch.tensor([[2.0, -1.0, 3.0], [NAN, -10.0, 30.0]]), equal_nan=True)


def test_a_members_own_pairs_come_first() -> None:
    judges = torch.tensor([[False, True, False, True], [False, False, True, False]])
    first = judged_first(judges)
    assert first[0].tolist() == [1, 3]
    assert first[1, 0] == 2
    assert first.shape == (2, 2)


@pytest.mark.parametrize("members", [1, 5])
def test_without_a_pair_to_judge_the_validation_pairs_decide(members: int) -> None:
    train = make_pairs([4, 4])
    orders = member_orders(train.prompt, members=members, seed=0, epoch=0)
    judges = out_of_bag(orders, train)
    assert not judges.any()
    assert judged_first(judges).shape == (members, 0)
    votes = jury_votes(torch.zeros(members, 2), judges, torch.ones(members, 3))
    assert votes.tolist() == [[1.0] * 3] * members
