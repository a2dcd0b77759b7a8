"""The bootstrap of a mean against the normal interval that it approaches."""

import math

import pytest

from rlhf.evaluation.bootstrap import mean_interval
from rlhf.evaluation.win_rate import compare_groups


def test_the_interval_of_many_observations_is_the_normal_one() -> None:
    # 0, 1, ..., 99: mean 49.5, standard deviation sqrt((100**2 - 1) / 12) = 28.87, of the mean 2.887.
    half = 1.96 * math.sqrt((100**2 - 1) / 12 / 100)
    assert mean_interval(range(100)) == pytest.approx((49.5 - half, 49.5 + half), abs=0.2)


def test_what_has_no_mean_is_refused() -> None:
    with pytest.raises(ValueError, match="0 observations"):
        mean_interval([])
    with pytest.raises(ValueError, match="not a finite number"):
        mean_interval([1.0, math.nan])


def test_prompts_with_unequal_samples_are_compared_over_all_pairs() -> None:
    # Prompt 1: after 2 beats 1 and ties with 2: (1 + 0.5) / 2 = 0.75. Prompt 2: 0 of 1. Prompt 3 has no score before.
    result = compare_groups([[1.0, 2.0], [5.0], []], [[2.0], [4.0], [9.0]])
    assert result is not None
    assert (result["win_rate"], result["n"]) == (pytest.approx(0.375), 2)
    assert compare_groups([[]], [[1.0]]) is None
