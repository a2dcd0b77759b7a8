import numpy as np
import pytest
import torch

from services.trainer.ppo.collate import collate, pad_rows, split_by_tokens, tree_mask
from tests.unit.ppo.stand_in import EOS, make_batch, random_batch

# Two prompts: [1, 2] with responses [5, 6] and [7, EOS, ...]; [3] with response [8, 9, EOS].
BATCH = make_batch([[1, 2], [3]], [[[5, 6], [7]], [[8, 9, EOS]]], rewards=[1.0, 2.0, 3.0])


def test_responses_stand_left_with_a_mask_of_their_lengths() -> None:
    rollout = collate([BATCH], row_tokens=100)
    assert rollout.response_ids.tolist() == [[5, 6, 0], [7, 0, 0], [8, 9, EOS]]
    assert rollout.response_mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert rollout.ended.tolist() == [False, False, True]
    assert rollout.rewards.tolist() == [1.0, 2.0, 3.0]
    assert rollout.group.tolist() == [0, 0, 1]


def test_a_row_is_a_prompt_and_its_samples() -> None:
    first, second = collate([BATCH], row_tokens=100).rows
    assert first.input_ids.tolist() == [1, 2, 5, 6, 7]
    # Both responses go on from the prompt's last position, 1.
    assert first.position_ids.tolist() == [0, 1, 2, 3, 2]
    assert first.segments.tolist() == [0, 0, 1, 1, 2]
    # 5 and 7 are predicted at the prompt's last token (1), 6 at token 5 (2).
    assert first.source.tolist() == [1, 2, 1]
    assert first.sample.tolist() == [0, 0, 1]
    assert first.offset.tolist() == [0, 1, 0]
    assert second.input_ids.tolist() == [3, 8, 9, EOS]
    assert second.source.tolist() == [0, 1, 2]
    assert (second.length, second.tokens) == (4, 3)


def test_without_packing_every_sample_has_its_row() -> None:
    rows = collate([BATCH], row_tokens=None).rows
    assert [row.input_ids.tolist() for row in rows] == [[1, 2, 5, 6], [1, 2, 7], [3, 8, 9, EOS]]
    assert [row.sample.tolist() for row in rows] == [[0, 0], [1], [2, 2, 2]]
    assert pad_rows(rows).mask is None


@pytest.mark.parametrize("row_tokens", [None, 1, 5, 8, 13, 1000])
def test_rows_cover_every_response_token_once_within_their_budget(row_tokens: int | None) -> None:
    batches = [random_batch(1), random_batch(2)]
    rollout = collate(batches, row_tokens=row_tokens)
    covered = torch.zeros_like(rollout.response_ids)
    for row in rollout.rows:
        covered[row.sample, row.offset] += 1
        # The ids at the predicted places are the response's.
        assert row.input_ids[row.segments > 0].tolist() == rollout.response_ids[row.sample, row.offset].tolist()
        alone = int(row.segments.max()) == 1
        assert alone or (row_tokens is not None and row.length <= row_tokens)
    assert covered.tolist() == rollout.response_mask.long().tolist()


def test_a_group_that_exceeds_the_row_is_cut() -> None:
    # Prompt of 2; responses of 3, 3, 3: 2 + 3 + 3 = 8 fits into 8, the third starts another row.
    batch = make_batch([[1, 2]], [[[4, 5, 6], [7, 8, 9], [10, 11, 12]]])
    assert [row.input_ids.tolist() for row in collate([batch], row_tokens=8).rows] == [
        [1, 2, 4, 5, 6, 7, 8, 9],
        [1, 2, 10, 11, 12],
    ]


def test_groups_of_different_batches_stay_apart() -> None:
    # The first batch's groups are 0 and 1, so the second's start at 2. Its groups need not be dense (1 was dropped).
    other = make_batch([[4], [4], [6]], [[[1]], [], [[2]]])
    rollout = collate([BATCH, other], row_tokens=100)
    assert rollout.group.tolist() == [0, 0, 1, 2, 4]
    assert len(rollout.rows) == 4


def test_a_batch_without_samples_adds_nothing() -> None:
    empty = make_batch([], [])
    rollout = collate([empty, BATCH, empty], row_tokens=100)
    assert rollout.group.tolist() == [0, 0, 1]
    assert rollout.response_ids.shape == (3, 3)


def test_different_prompts_in_one_group_are_refused() -> None:
    batch = make_batch([[1, 2], [3]], [[[5]], [[6]]])
    np.copyto(batch.group, 0)
    with pytest.raises(ValueError, match="samples 0 and 1 are of one group but have different prompts"):
        collate([batch], row_tokens=100)


def test_tree_mask_by_hand() -> None:
    # prompt, response 1, response 1, response 2, pad
    mask = tree_mask(torch.tensor([[0, 1, 1, 2, -1]]))[0, 0] == 0
    assert mask.long().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]


def test_padded_rows_point_into_the_flattened_batch() -> None:
    rollout = collate([BATCH], row_tokens=100)
    packed = pad_rows(rollout.rows)
    assert packed.input_ids.tolist() == [[1, 2, 5, 6, 7], [3, 8, 9, EOS, 0]]
    # Second row begins at 5.
    assert packed.source.tolist() == [1, 2, 1, 5, 6, 7]
    assert packed.sample.tolist() == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("budget", [1, 64, 100, 150, 10_000])
def test_micro_batches_hold_every_row_once_within_the_budget(budget: int) -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 60, 40)]
    rows = list(range(3, 40, 2))
    parts = split_by_tokens(rows, lengths, budget)
    assert sorted(row for part in parts for row in part) == rows
    assert all(len(part) == 1 or len(part) * max(lengths[row] for row in part) <= budget for part in parts)


def test_micro_batches_by_hand() -> None:
    # sorted 9, 5, 4, 2 (rows 1, 3, 0, 2), budget 10: 9·2 > 10 → [1]; 5·2 = 10 → [3, 0]; 5·3 > 10 → [2]
    assert split_by_tokens([0, 1, 2, 3], [4, 9, 2, 5], 10) == [[1], [3, 0], [2]]
