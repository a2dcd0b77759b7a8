"""Numbers from the definitions, by hand."""

import torch
from torch import tensor

from services.policy.engine.penalties import ban_repeated_ngrams, ban_tokens, penalise_counts, penalise_repetition

INF = float("inf")


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = tensor([[2.0, -2.0, 1.0, 0.0], [2.0, -2.0, 1.0, 0.0]])
    # Row 0 has seen 0, 1 and 3: 2/2 = 1, -2·2 = -4, 0·2 = 0; token 2 stays. Row 1 has penalty 1: nothing changes.
    ids = tensor([[0, 1, 1, 3], [0, 1, 1, 3]])
    out = penalise_repetition(logits, ids, tensor([2.0, 1.0]))
    assert torch.equal(out, tensor([[1.0, -4.0, 1.0, 0.0], [2.0, -2.0, 1.0, 0.0]]))


def test_a_token_seen_often_is_penalised_once() -> None:
    out = penalise_repetition(tensor([[8.0, 1.0]]), tensor([[0, 0, 0]]), tensor([2.0]))
    assert out.tolist() == [[4.0, 1.0]]  # 8/2, not 8/2/2/2


def test_a_penalty_below_one_favours_seen_tokens() -> None:
    out = penalise_repetition(tensor([[1.0, -1.0]]), tensor([[0, 1]]), tensor([0.5]))
    assert out.tolist() == [[2.0, -0.5]]  # 1/0.5, -1·0.5


def test_frequency_counts_occurrences_and_presence_does_not() -> None:
    # Token 0 twice: -0.5·2 - 0.25 = -1.25; token 1 once: -0.5 - 0.25 = -0.75; token 2 never.
    # In row 1 the first 0 is a pad: once, -0.75. Row 2 has both off.
    ids = tensor([[0, 0, 1]] * 3)
    out = penalise_counts(torch.zeros(3, 3), ids, tensor([0, 1, 0]), tensor([0.5, 0.5, 0]), tensor([0.25, 0.25, 0]))
    assert out.tolist() == [[-1.25, -0.75, 0], [-0.75, -0.75, 0], [0, 0, 0]]


def test_negative_penalties_favour_what_was_seen() -> None:
    out = penalise_counts(torch.zeros(1, 2), tensor([[1, 1]]), tensor([0]), tensor([-1.0]), tensor([-0.5]))
    assert out.tolist() == [[0, 2.5]]  # 1·2 + 0.5


def banned(ids: list[list[int]], start: list[int], size: list[int], vocabulary: int = 6) -> list[list[int]]:
    out = ban_repeated_ngrams(torch.zeros(len(ids), vocabulary), tensor(ids), tensor(start), tensor(size))
    return [(row == -INF).nonzero()[:, 0].tolist() for row in out]


def test_the_token_that_would_complete_a_known_bigram_is_banned() -> None:
    # The row ends in 1; after a 1 came 2 and then 3, so the bigrams (1, 2) and (1, 3) exist.
    assert banned([[1, 2, 1, 3, 1]], [0], [2]) == [[2, 3]]


def test_trigrams_look_at_the_last_two_tokens() -> None:
    # (1, 2) occurred before and was followed by 3; (2, 1) as the last two has not been followed by anything.
    assert banned([[1, 2, 3, 0, 1, 2]], [0], [3]) == [[3]]
    assert banned([[1, 2, 3, 2, 1]], [0], [3]) == [[]]


def test_unigrams_ban_every_token_seen() -> None:
    assert banned([[4, 2, 4]], [0], [1]) == [[2, 4]]


def test_overlapping_occurrences_count() -> None:
    # In 5 5 5 the bigram (5, 5) exists; after the last 5 another 5 would repeat it.
    assert banned([[5, 5, 5]], [0], [2]) == [[5]]


def test_pads_form_no_ngrams() -> None:
    # Pads repeat the first token: without `start` row 0 would hold the bigram (1, 1) and ban 1.
    assert banned([[1, 1, 1, 2, 1]], [2], [2]) == [[2]]
    assert banned([[1, 1, 1, 2, 1]], [0], [2]) == [[1, 2]]


def test_each_row_has_its_own_size_and_zero_is_off() -> None:
    row = [1, 2, 3, 1, 2]
    # n=1: all seen. n=2: after 2 came 3. n=3: after (1, 2) came 3. n=6: longer than the row.
    assert banned([row] * 5, [0] * 5, [1, 2, 3, 0, 6]) == [[1, 2, 3], [3], [3], [], []]


def test_ban_tokens_only_where_asked() -> None:
    out = ban_tokens(torch.zeros(2, 4), tensor([True, False]), tensor([1, 3]))
    assert out.tolist() == [[0.0, -INF, 0.0, -INF], [0.0, 0.0, 0.0, 0.0]]
