"""The Bradley-Terry fit against published strengths, an independent fit, and hand sums."""

import math

import numpy as np
import pytest

from rlhf.evaluation.bradley_terry import Comparison, fit_strengths, rank

# American League 1987, 13 games a pair (Agresti, Categorical Data Analysis, table 10.10): Milwaukee, Detroit, Toronto,
# New York, Boston, Cleveland, Baltimore; a row's wins over each.
BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    dtype=float,
)


def test_strengths_of_the_published_example() -> None:
    # Agresti gives 1.58, 1.44, 1.29, 1.25, 1.11, 0.68, Baltimore 0; the digits below are statsmodels' GLM (binomial,
    # no intercept) on the same table.
    expected = [1.58135588, 1.43640843, 1.29448512, 1.24761785, 1.10769771, 0.68385277, 0.0]
    strengths = fit_strengths(BASEBALL)
    assert strengths - strengths[-1] == pytest.approx(expected, abs=1e-6)
    assert strengths.sum() == pytest.approx(0.0, abs=1e-12)


def test_two_by_hand() -> None:
    # 6 wins, 2 losses, 4 ties as half: 8 to 4, so log(8 / 4) apart.
    comparisons = [Comparison("a", "b", outcome) for outcome in [1.0] * 6 + [0.0] * 2 + [0.5] * 4]
    first, second = rank(comparisons, prior=0.0, resamples=50)
    assert (first.name, second.name, first.comparisons) == ("a", "b", 12)
    assert first.strength - second.strength == pytest.approx(math.log(2))


def test_the_interval_is_the_wald_interval_of_many_comparisons() -> None:
    # 600 of 1000: the log-odds have the standard error 1 / sqrt(1000 * 0.6 * 0.4) = 0.0645, a strength, half of them,
    # 0.0323: 0.2027 -+ 1.96 * 0.0323.
    comparisons = [Comparison("a", "b", 1.0)] * 600 + [Comparison("b", "a", 1.0)] * 400
    low, high = rank(comparisons, resamples=500)[0].ci95
    half = 1.96 * 0.0323
    assert (low, high) == pytest.approx((math.log(1.5) / 2 - half, math.log(1.5) / 2 + half), abs=0.012)


def test_a_winner_of_everything_needs_a_prior() -> None:
    wins = np.array([[0.0, 3.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="a prior such as"):
        fit_strengths(wins)
    # Half a tie for each: 3.5 to 0.5.
    strengths = fit_strengths(wins, prior=1.0)
    assert strengths[0] - strengths[1] == pytest.approx(math.log(7))


def test_groups_that_never_met_cannot_be_ranked_without_a_prior() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = 1.0
    with pytest.raises(ValueError, match="met none"):
        fit_strengths(wins)


def test_wrong_comparisons_are_named() -> None:
    with pytest.raises(ValueError, match="0 comparisons"):
        rank([])
    with pytest.raises(ValueError, match="comparison 0 is of 'a' with itself"):
        rank([Comparison("a", "a", 1.0)])
    with pytest.raises(ValueError, match=r"outcome 2\.0"):
        rank([Comparison("a", "b", 2.0)])
