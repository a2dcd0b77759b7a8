"""The measures of preferences by hand."""

import math

import numpy as np
import pytest

from rlhf.evaluation.preferences import (
    accuracy_by_quartile,
    auroc,
    calibration_error,
    describe_distribution,
    fit_temperature,
    length_differences,
    length_preference,
    pairwise_accuracy,
    preference_nll,
    preference_uncertainty,
    wilson_interval,
)


def test_a_tie_counts_half() -> None:
    # right, wrong, tie, right: (1 + 0 + 0.5 + 1) / 4
    assert pairwise_accuracy(np.array([1.0, -1.0, 0.0, 2.0])) == 0.625


def test_wilson_by_hand() -> None:
    # p = 0.5, n = 10, z = 2: centre (0.5 + 4/20) / 1.4 = 0.5; half width 2·√(0.25/10 + 4/400) / 1.4 = 0.374166 / 1.4
    assert wilson_interval(0.5, 10, z=2.0) == pytest.approx((0.232739, 0.767261), abs=1e-6)
    low, high = wilson_interval(1.0, 20)
    assert 0.8 < low < 1.0
    assert high == pytest.approx(1.0)
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def test_nll_by_hand() -> None:
    # log(1 + e⁰) = log 2 and log(1 + e^(-2/2)) = 0.313262: mean 0.503205
    assert preference_nll(np.array([0.0, 2.0]), 2.0) == pytest.approx(0.503205, abs=1e-6)


def test_calibration_error_by_hand() -> None:
    # σ(log 3) = 0.75, one right and one wrong: off by 0.25. σ(log 4) = 0.8, right: off by 0.2.
    # 2/3 x 0.25 + 1/3 x 0.2 = 0.233333
    differences = np.array([math.log(3), -math.log(3), math.log(4)])
    assert calibration_error(differences) == pytest.approx(0.233333, abs=1e-6)
    # At temperature 1/2 the confidences are σ(2·log 3) = 0.9 (half right) and σ(2·log 4) = 16/17 (right), and both
    # lie in the bin from 0.75 to 1: |(0.9 + 0.9 + 0.941176) / 3 - 2/3| = 0.247059
    assert calibration_error(differences, temperature=0.5, bins=2) == pytest.approx(0.247059, abs=1e-6)


def test_certainty_lies_in_the_last_bin() -> None:
    # σ(1000) = 1: right every time is no error.
    assert calibration_error(np.array([1000.0, 1000.0])) == 0.0


def test_temperature_by_hand() -> None:
    # Three of four right at |difference| 1: the likelihood is highest where σ(1/T) = 3/4, T = 1 / log 3 = 0.910239
    assert fit_temperature(np.array([1.0, 1.0, 1.0, -1.0])) == pytest.approx(0.910239, abs=1e-4)
    assert fit_temperature(np.array([1.0, 2.0])) == pytest.approx(0.02, rel=1e-3)


def test_auroc_by_hand() -> None:
    positive = np.array([False, True, False, True])
    # 2 > 1, 2 < 3, 4 > 1, 4 > 3: three of four
    assert auroc(np.array([1.0, 2.0, 3.0, 4.0]), positive) == 0.75
    # 2 > 1, 2 = 2 half, 2 > 1, 2 = 2 half: three of four
    assert auroc(np.array([1.0, 2.0, 2.0, 2.0]), positive) == 0.75
    assert auroc(np.array([1.0, 2.0]), np.array([True, True])) is None


def test_accuracy_by_quartile_by_hand() -> None:
    differences = np.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
    uncertainty = np.array([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    # From the most certain: right right | wrong wrong | right right | wrong right
    assert accuracy_by_quartile(differences, uncertainty) == [1.0, 0.0, 1.0, 0.5]
    assert accuracy_by_quartile(differences[:2], uncertainty[:2]) == [0.0, 1.0]


def test_length_baseline() -> None:
    # The shorter is chosen twice, the longer once.
    preference = length_preference([3, 4, 9], [5, 6, 7])
    assert preference == -1.0
    # Then 2 against 4 is right, 8 against 1 wrong, 5 against 5 a tie: (1 + 0 + 0.5) / 3
    assert pairwise_accuracy(length_differences([2, 8, 5], [4, 1, 5], preference)) == 0.5


def test_a_close_vote_and_a_split_one_are_uncertain_alike_and_only_one_is_disagreement() -> None:
    total, disagreement = preference_uncertainty(np.array([[0.5, 0.9], [0.5, 0.1]]))
    # Both means are 0.5: log 2. Members that say 0.9 and 0.1 have H = 0.325083 each, and log 2 - 0.325083 = 0.368064.
    assert total == pytest.approx([math.log(2), math.log(2)])
    assert disagreement == pytest.approx([0.0, 0.368064], abs=1e-6)
    sure, _ = preference_uncertainty(np.array([[1.0], [1.0]]))
    assert sure == pytest.approx([0.0], abs=1e-9)


def test_a_distribution_by_hand() -> None:
    told = describe_distribution(np.array([4.0, 0.0, 1.0, 2.0, 3.0]))
    # 0 to 4 in steps of 1: the p-th percentile is p / 25, the variance (4 + 1 + 0 + 1 + 4) / 5 = 2
    assert (told["p05"], told["p25"], told["p50"], told["p95"]) == pytest.approx((0.2, 1.0, 2.0, 3.8))
    assert (told["mean"], told["std"]) == pytest.approx((2.0, math.sqrt(2)))
