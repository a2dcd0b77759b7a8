"""Aggregates by hand."""

import pytest

from rlhf.contracts.reward import Aggregation
from services.reward.aggregation import aggregate


@pytest.mark.parametrize(
    ("method", "reward"),
    [
        # members 1, 2, 6: mean 3; variance ((-2)² + (-1)² + 3²) / 3 = 14/3; std 2.160247
        ("mean", 3.0),
        ("min", 1.0),
        ("lcb", 3.0 - 0.5 * 2.160247),
        ("uwo", 3.0 - 0.5 * 14 / 3),
    ],
)
def test_by_hand(method: str, reward: float) -> None:
    result = aggregate([1.0, 2.0, 6.0], Aggregation.model_validate({"method": method, "lambda": 0.5}))
    assert result.reward == pytest.approx(reward, abs=1e-6)
    assert result.score == pytest.approx(3.0)
    assert result.uncertainty == pytest.approx(2.160247, abs=1e-6)


@pytest.mark.parametrize("method", ["mean", "min", "lcb", "uwo"])
def test_one_member_is_certain_of_itself(method: str) -> None:
    result = aggregate([-1.5], Aggregation(method=method))
    assert (result.reward, result.score, result.uncertainty) == (-1.5, -1.5, 0.0)
