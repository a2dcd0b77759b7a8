import torch

from services.trainer.ppo.rewards import leave_one_out, repeated_ngrams, sequence_rewards, shape_rewards


def test_only_responses_that_were_cut_pay_the_penalty() -> None:
    # 2 - 0, 2 - 1.5
    rewards = sequence_rewards(torch.tensor([2.0, 2.0]), torch.tensor([True, False]), 1.5)
    assert rewards.tolist() == [2.0, 0.5]


def test_leave_one_out_by_hand() -> None:
    # group 0: 1 - (2+6)/2 = -3;  2 - (1+6)/2 = -1.5;  6 - (1+2)/2 = 4.5.  group 1: 4 - 0 = 4;  0 - 4 = -4
    # The groups are interleaved: equality of the ids counts, not their order.
    rewards = torch.tensor([1.0, 4.0, 2.0, 6.0, 0.0])
    group = torch.tensor([0, 1, 0, 0, 1])
    assert leave_one_out(rewards, group).tolist() == [-3.0, 4.0, -1.5, 4.5, -4.0]


def test_a_lone_sample_is_compared_with_the_rest_of_the_batch() -> None:
    # 1 - 3 = -2;  3 - 1 = 2;  alone: 8 - (1+3)/2 = 6
    assert leave_one_out(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 1])).tolist() == [-2.0, 2.0, 6.0]


def test_all_samples_alone_are_compared_with_each_other() -> None:
    # 1 - (3+8)/2 = -4.5;  3 - (1+8)/2 = -1.5;  8 - (1+3)/2 = 6
    assert leave_one_out(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([4, 2, 9])).tolist() == [-4.5, -1.5, 6.0]


def test_the_only_sample_of_a_batch_keeps_its_reward() -> None:
    assert leave_one_out(torch.tensor([5.0]), torch.tensor([0])).tolist() == [5.0]


def test_shape_rewards_by_hand() -> None:
    # β=0.1. Row 0: log π - log π_ref = 0.5, -1 → -0.05, 0.1; its reward 3 on the last token: 3.1
    # Row 1 has one token: 0.2 → -0.02, with reward -1: -1.02. What stands outside the mask is ignored.
    old = torch.tensor([[-1.0, -2.0], [-0.3, 7.0]])
    ref = torch.tensor([[-1.5, -1.0], [-0.5, -7.0]])
    mask = torch.tensor([[True, True], [True, False]])
    shaped = shape_rewards(torch.tensor([3.0, -1.0]), old, ref, mask, beta=0.1)
    torch.testing.assert_close(shaped, torch.tensor([[-0.05, 3.1], [-1.02, 0.0]]))


def test_without_a_kl_penalty_only_the_last_token_is_rewarded() -> None:
    mask = torch.tensor([[True, True, False]])
    shaped = shape_rewards(torch.tensor([3.0]), torch.randn(1, 3), torch.randn(1, 3), mask, beta=0.0)
    assert shaped.tolist() == [[0.0, 3.0, 0.0]]


def test_the_token_that_completes_a_repeated_ngram_is_marked() -> None:
    # 1 2 3 1 2 3 1: of the pairs 12 23 31 12 23 31, the last three repeat; they end at positions 4, 5 and 6.
    ids = torch.tensor([[1, 2, 3, 1, 2, 3, 1]])
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    assert repeated_ngrams(ids, everywhere, 2).int().tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    # Of the fours 1231 2312 3123 1231, only the last repeats.
    assert repeated_ngrams(ids, everywhere, 4).int().tolist() == [[0, 0, 0, 0, 0, 0, 1]]


def test_responses_repeat_only_themselves_and_only_inside_the_mask() -> None:
    ids = torch.tensor([[5, 5, 5, 5], [5, 5, 0, 0]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    # Row 0: 55 55 inside the mask, the second repeats. Row 1 has one pair; its pads 00 are no text.
    assert repeated_ngrams(ids, mask, 2).int().tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]
