"""The win rate and its interval against values derived by hand."""

import math

import pytest

from rlhf.evaluation.win_rate import compare_paired


def test_wins_ties_and_losses():
    # Win, loss, tie, win: (1 + 0 + 0.5 + 1) / 4.
    result = compare_paired([0.1, 0.9, 0.5, 0.2], [0.2, 0.1, 0.5, 0.3])
    assert result["win_rate"] == pytest.approx(0.625)
    assert result["n"] == 4


def test_interval_of_a_certain_outcome_has_no_width():
    assert compare_paired([0.0] * 5, [1.0] * 5) == {"win_rate": 1.0, "ci95": (1.0, 1.0), "n": 5}
    assert compare_paired([0.3] * 5, [0.3] * 5) == {"win_rate": 0.5, "ci95": (0.5, 0.5), "n": 5}


def test_interval_matches_the_binomial_it_resamples():
    # 60 wins of 100: a resampled win rate has mean 0.6 and standard deviation sqrt(0.6 * 0.4 / 100) = 0.049, so the
    # interval is 0.6 -+ 1.96 * 0.049 = [0.504, 0.696], up to steps of 0.01.
    low, high = compare_paired([0.0] * 60 + [1.0] * 40, [1.0] * 60 + [0.0] * 40)["ci95"]
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert low == pytest.approx(0.6 - half, abs=0.011)
    assert high == pytest.approx(0.6 + half, abs=0.011)


def test_ties_narrow_the_interval():
    # Half of the outcomes are 0.5, a quarter 1, a quarter 0: variance 0.5 * 0.25 = 0.125, against 0.25 without ties.
    low, high = compare_paired([0.5] * 50 + [0.0] * 25 + [1.0] * 25, [0.5] * 50 + [1.0] * 25 + [0.0] * 25)["ci95"]
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.125 / 100), abs=0.011)


def test_samples_of_one_prompt_are_one_observation():
    # Prompt 1 wins and loses, prompt 2 wins twice: outcomes 0.5 and 1, mean 0.75 over 2 prompts.
    result = compare_paired([0, 0, 0, 0], [1, -1, 1, 1], samples_per_prompt=2)
    assert result["win_rate"] == pytest.approx(0.75)
    assert result["n"] == 2
    # Copies of a sample add no information: the interval stays that of one sample a prompt.
    before, after = [0.0] * 60 + [1.0] * 40, [1.0] * 60 + [0.0] * 40
    doubled = compare_paired([b for b in before for _ in "ab"], [a for a in after for _ in "ab"], samples_per_prompt=2)
    assert doubled == compare_paired(before, after)


def test_same_seed_same_interval():
    before, after = [0.0, 1.0] * 20, [0.5] * 40
    assert compare_paired(before, after, seed=7) == compare_paired(before, after, seed=7)


def test_errors_say_the_value_and_the_cure():
    with pytest.raises(ValueError, match="2 scores before and 1 after"):
        compare_paired([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="no multiple of samples_per_prompt=2"):
        compare_paired([0.1], [0.1], samples_per_prompt=2)
    with pytest.raises(ValueError, match="0 prompts"):
        compare_paired([], [])
    with pytest.raises(ValueError, match="finite"):
        compare_paired([math.nan], [0.1])
