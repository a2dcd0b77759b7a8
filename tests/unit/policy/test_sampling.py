"""Filters against their definitions, the draw against hand-made distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor
from transformers import MinPLogitsWarper, TypicalLogitsWarper

from services.policy.engine import sampling
from services.policy.engine.sampling import draw, keep_min_p, keep_top_k, keep_top_p, keep_typical

INF = float("inf")
# Multiples of 1/8 give many exact ties, which is where filters go wrong.
scores_rows = st.lists(st.integers(-40, 40).map(lambda i: i / 8), min_size=1, max_size=40)


def kept(scores: Tensor) -> list[list[int]]:
    return [(row > -INF).nonzero()[:, 0].tolist() for row in scores]


def log(*probabilities: float) -> Tensor:
    return torch.tensor([[math.log(p) if p else -INF for p in probabilities]])


def no(count: int = 1) -> Tensor:
    return torch.zeros(count, dtype=torch.bool)


def test_top_k_of_each_row() -> None:
    row = [1.0, 4.0, 2.0, 3.0]
    out = keep_top_k(tensor([row, row, row, row]), tensor([1, 2, 0, 9]))
    assert kept(out) == [[1], [1, 3], [0, 1, 2, 3], [0, 1, 2, 3]]


@settings(deadline=None)
@given(scores_rows, st.integers(1, 50))
def test_top_k_keeps_exactly_the_tokens_with_fewer_than_k_better_ones(row: list[float], k: int) -> None:
    wanted = [i for i, s in enumerate(row) if sum(other > s for other in row) < k]
    assert kept(keep_top_k(tensor([row]), tensor([k]))) == [wanted]


def test_top_p_is_the_smallest_set_that_reaches_p() -> None:
    # Most likely first: 0.5, 0.75, 0.9, 1. p=0.7 needs two of them, p=0.8 three, 0.4 one.
    scores = log(0.25, 0.5, 0.1, 0.15).repeat(4, 1)
    assert kept(keep_top_p(scores, tensor([0.7, 0.8, 0.4, 1.0]))) == [[0, 1], [0, 1, 3], [1], [0, 1, 2, 3]]


@settings(deadline=None)
@given(scores_rows, st.floats(0.01, 0.99))
def test_top_p_keeps_enough_mass_and_nothing_needless(row: list[float], p: float) -> None:
    probabilities = torch.tensor(row, dtype=torch.float64).softmax(0).tolist()
    inside = kept(keep_top_p(tensor([row]), tensor([p])))[0]
    weakest = min(probabilities[i] for i in inside)
    assert sum(probabilities[i] for i in inside) >= p - 1e-6
    assert inside == [i for i, q in enumerate(probabilities) if q >= weakest * (1 - 1e-6)], "as likely ones stay"
    assert sum(q for q in probabilities if q > weakest * (1 + 1e-6)) < p + 1e-6, "the next larger set does not reach p"


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.999])
def test_top_p_in_steps_equals_sorting_everything(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(6, 3000, generator=torch.Generator().manual_seed(0)) * tensor(
        [[0.1], [0.3], [1], [2], [4], [8]]
    )
    limits = torch.full((6,), p)
    stepwise = keep_top_p(scores, limits)
    monkeypatch.setattr(sampling, "NUCLEUS_WIDTHS", ())
    assert torch.equal(stepwise, keep_top_p(scores, limits))


def test_filters_leave_banned_tokens_banned() -> None:
    scores = tensor([[1.0, -INF, 0.0]])
    assert kept(keep_top_k(scores, tensor([3]))) == [[0, 2]]
    assert kept(keep_top_p(scores, tensor([0.999]))) == [[0, 2]]


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.05, 0), (0.2, 1), (0.35, 2), (0.55, 2), (0.65, 3), (0.999, 3)]
)
def test_draw_inverts_the_cumulative_distribution(uniform: float, token: int) -> None:
    # Cumulative 0.1, 0.3, 0.6, 1.0: 0.2 falls into (0.1, 0.3] and so on.
    tokens, logprobs = draw(log(0.1, 0.2, 0.3, 0.4), tensor([uniform]), no())
    assert tokens.tolist() == [token]
    assert logprobs.item() == pytest.approx(math.log([0.1, 0.2, 0.3, 0.4][token]), abs=1e-6)


def test_draw_normalises_scores() -> None:
    # Scores 7 and 7 + ln 3 have probabilities 1/4 and 3/4.
    tokens, logprobs = draw(tensor([[7.0, 7.0 + math.log(3)]]), tensor([0.3]), no())
    assert (tokens.item(), logprobs.item()) == (1, pytest.approx(math.log(0.75), abs=1e-6))


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.just(-INF), st.floats(-90, 90, width=32)), min_size=1, max_size=60).filter(
        lambda row: max(row) > -INF
    ),
    st.one_of(st.just(0.0), st.just(1 - 2**-24), st.floats(0, 1, exclude_max=True, width=32)),
)
def test_draw_never_takes_a_banned_token(row: list[float], uniform: float) -> None:
    tokens, logprobs = draw(tensor([row]), tensor([uniform]), no())
    assert row[tokens.item()] > -INF
    wanted = torch.tensor(row, dtype=torch.float64).log_softmax(0)[tokens.item()].item()
    assert logprobs.item() == pytest.approx(wanted, abs=2e-4)


def test_draw_follows_the_distribution() -> None:
    probabilities = tensor([0.5, 0.25, 0.125, 0.125])
    count = 20_000
    uniforms = torch.rand(count, generator=torch.Generator().manual_seed(3))
    tokens, _ = draw(probabilities.log().repeat(count, 1), uniforms, no(count))
    shares = tokens.bincount(minlength=4) / count
    # Standard deviation of a share of 0.5 over 20000 draws is √(0.25 / 20000) = 0.0035; allow four.
    assert (shares - probabilities).abs().max() < 4 * 0.0036


def test_greedy_rows_take_the_most_likely_token_beside_sampled_ones() -> None:
    scores = log(0.3, 0.6, 0.1).repeat(2, 1)
    tokens, logprobs = draw(scores, tensor([0.95, 0.95]), tensor([True, False]))
    assert tokens.tolist() == [1, 2]
    assert logprobs.tolist() == pytest.approx([math.log(0.6), math.log(0.1)], abs=1e-6)


@pytest.mark.parametrize("row", [[-INF, -INF], [float("nan"), 0.0], [INF, 0.0]])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_row_without_a_choice_is_told_by_nan(row: list[float], greedy: bool) -> None:
    tokens, logprobs = draw(tensor([row, [0.0, 0.0]]), tensor([0.5, 0.2]), tensor([greedy, False]))
    assert math.isnan(logprobs[0].item())
    assert (tokens[1].item(), logprobs[1].item()) == (0, pytest.approx(math.log(0.5)))


def test_a_rows_draw_does_not_depend_on_its_neighbours() -> None:
    scores = torch.randn(8, 500, generator=torch.Generator().manual_seed(1)) * 3
    uniforms = torch.rand(8, generator=torch.Generator().manual_seed(2))
    together = draw(keep_top_p(scores, torch.full((8,), 0.8)), uniforms, no(8))
    for i in range(8):
        alone = draw(keep_top_p(scores[i : i + 1], tensor([0.8])), uniforms[i : i + 1], no())
        assert (alone[0].item(), alone[1].item()) == (together[0][i].item(), together[1][i].item())


def test_min_p_is_relative_to_the_most_likely_token() -> None:
    # The likeliest has 0.5: p=0.5 keeps what has 0.25 or more, p=0.6 what has 0.3.
    scores = log(0.5, 0.25, 0.125, 0.125).repeat(4, 1)
    assert kept(keep_min_p(scores, tensor([0.49, 0.6, 0.0, 1.0]))) == [[0, 1], [0], [0, 1, 2, 3], [0]]


def test_typical_tokens_are_those_nearest_the_entropy() -> None:
    # In units of ln 2: information 1, 2, 3, 3; entropy 0.5·1 + 0.25·2 + 2·0.125·3 = 1.75; distances 0.75, 0.25, 1.25,
    # 1.25. Nearest first: token 1 (mass 0.25), token 0 (0.75), then the other two, which tie.
    scores = log(0.5, 0.25, 0.125, 0.125).repeat(4, 1)
    assert kept(keep_typical(scores, tensor([0.2, 0.7, 0.8, 1.0]))) == [[1], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_a_banned_token_is_never_typical() -> None:
    assert kept(keep_typical(log(0.75, 0.25, 0.0), tensor([0.99]))) == [[0, 1]]


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.99))
def test_min_p_and_typical_are_transformers_own(seed: int, p: float) -> None:
    scores = 3 * torch.randn(3, 50, generator=torch.Generator().manual_seed(seed))
    ids, each = torch.zeros(3, 1, dtype=torch.int64), torch.full((3,), p)
    assert kept(keep_min_p(scores, each)) == kept(MinPLogitsWarper(p)(ids, scores))
    assert kept(keep_typical(scores, each)) == kept(TypicalLogitsWarper(p)(ids, scores))
