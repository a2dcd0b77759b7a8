"""The verdict: each claim holds and fails where it should, and the words follow."""

from __future__ import annotations

import pytest

from rlhf.evaluation.verdict import conclude, judge, kl_band, kl_late
from tests.sample_report import full_report


def test_every_claim_fails_on_a_bad_run() -> None:
    report = full_report()
    report["reward_model"] |= {"accuracy_ensemble": 0.60, "accuracy_length_baseline": 0.61}
    report["ppo"] |= {"policy_loss": [0.0, 0.0], "ratio_first_minibatch": [1.0, 1.002], "kl_sequence": [-2.0, -1.0]}
    report["before"], report["after"] = report["after"], report["before"]
    report["after"]["distinct2"] = 0.62  # 0.9 × 0.69 = 0.621
    report["win_rate"] = {"gold": 0.4, "gold_ci95": [0.31, 0.49], "n": 96}
    assert [claim.text for claim in judge(report) if claim.holds is not False] == []
    assert conclude(report).tone == "bad"
    assert "11 of 11 checks fail" in conclude(report).sentences[-1]


def test_an_interval_that_holds_half_is_no_clear_change() -> None:
    report = full_report() | {"win_rate": {"gold": 0.53, "gold_ci95": (0.48, 0.58), "n": 96}}
    assert conclude(report).headline.startswith("No clear change")
    assert conclude(report).tone == "mixed"


def test_the_late_kl_is_the_median_of_the_last_half() -> None:
    # The last half of five steps is the last three; the gap does not count: the median of 0.2 and 0.4.
    report = {"ppo": {"kl_sequence": [9.0, 9.0, 0.2, None, 0.4]}}
    assert kl_late(report) == pytest.approx(0.3)
    assert kl_late({}) is None


def test_the_kl_band_follows_the_target() -> None:
    assert kl_band({}) == (0.1, 0.5)
    assert kl_band({"ppo": {"kl_target": 0.3}}) == (0.1, 0.5)
    assert kl_band({"ppo": {"kl_target": 6.0}}) == pytest.approx((2.0, 10.0))  # 6 / 3 and 6 × 5 / 3
