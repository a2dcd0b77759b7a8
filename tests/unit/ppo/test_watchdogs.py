import math

import pytest

from services.trainer.ppo.watchdogs import LONG, watch

HEALTHY = {
    "policy_loss": -0.01,
    "value_loss": 0.5,
    "kl_sequence": 0.2,
    "reward_mean": 1.0,
    "reward_std": 0.5,
    "score_mean": 1.0,
    "uncertainty_mean": 0.2,
    "grad_norm": 0.7,
    "response_length": 40.0,
    "eos_rate": 0.5,
    "entropy": 2.0,
    "clip_fraction": 0.1,
    "explained_variance": 0.3,
    "engine_mismatch": 0.001,
    "rep4": 0.02,
}


def names(*changes: dict[str, float], steps: int = 0, target: float = 1.0) -> set[str]:
    """Alerts at the end of `steps` healthy steps and then one step with each of the changes."""
    rows = [*({} for _ in range(steps)), *changes]
    # Losses that differ from step to step, as they do.
    history = [{**HEALTHY, "policy_loss": -0.01 - 0.001 * i, **change} for i, change in enumerate(rows)]
    return {alert.name for alert in watch(history, kl_target=target)}


def test_a_healthy_run_is_quiet() -> None:
    for steps in (1, 2, 3, 6, 30):
        assert names(steps=steps) == set()


@pytest.mark.parametrize("name", ["policy_loss", "value_loss", "kl_sequence", "reward_mean", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_stop_the_job(name: str, value: float) -> None:
    alerts = watch([{**HEALTHY, name: value}], kl_target=1.0)
    assert [alert.fatal for alert in alerts if alert.name == "not_finite"] == [True]
    assert name in next(alert.hint for alert in alerts if alert.name == "not_finite")


def test_a_loss_of_zero() -> None:
    assert names({"policy_loss": 0.0}, steps=2) == {"policy_loss_zero"}
    assert names({"policy_loss": 1e-9}, steps=2) == set()


def test_a_constant_loss() -> None:
    same = {"policy_loss": -0.3}
    assert names(same, same, same) == {"policy_loss_constant"}
    assert names(same, same) == set()
    assert names(same, {"policy_loss": -0.31}, same) == set()


def test_a_kl_of_exactly_zero_after_an_update_and_fatal_when_it_lasts() -> None:
    zero = {**HEALTHY, "kl_sequence": 0.0}
    rows = [{**zero, "policy_loss": 0.1 * i} for i in range(1, 6)]
    # The first step's KL is 0 by construction.
    assert watch(rows[:1], kl_target=1.0) == []
    assert [(a.name, a.fatal) for a in watch(rows[:2], kl_target=1.0)] == [("kl_zero", False)]
    assert [(a.name, a.fatal) for a in watch(rows[:3], kl_target=1.0)] == [("kl_zero", False)]
    assert [(a.name, a.fatal) for a in watch(rows[:4], kl_target=1.0)] == [("kl_zero", True)]


def test_the_value_warm_up_does_not_count_as_updates() -> None:
    zero = {**HEALTHY, "kl_sequence": 0.0}
    rows = [{**zero, "policy_loss": 0.1 * i, "value_only": float(i <= 5)} for i in range(1, 8)]
    # Five steps of warm-up, then one that updates the policy: the KL after it is the first that must not be 0.
    assert watch(rows[:6], kl_target=1.0) == []
    assert [(a.name, a.fatal) for a in watch(rows[:7], kl_target=1.0)] == [("kl_zero", False)]


def test_kl_bounds() -> None:
    # target 1: above 10·1; below -(0.1 + 0.5·1) = -0.6
    assert names({"kl_sequence": 10.1}) == {"kl_exploded"}
    assert names({"kl_sequence": 10.0}) == set()
    assert names({"kl_sequence": -0.61}) == {"kl_negative"}
    assert names({"kl_sequence": -0.59}) == set()
    assert names({"kl_sequence": 10.1}, target=2.0) == set()


def test_equal_rewards() -> None:
    assert names({"reward_std": 0.0}, steps=1) == {"reward_constant"}
    assert names({"reward_std": 1e-3}, steps=1) == set()


def test_no_response_ends() -> None:
    cut = {"eos_rate": 0.0}
    assert names(cut, cut, cut) == {"all_at_length_limit"}
    assert names(cut, cut) == set()
    assert names(cut, {"eos_rate": 0.03}, cut) == set()


def test_lengths_collapse() -> None:
    # 40 at the start: below 10
    assert names({"response_length": 9.9}, steps=1) == {"length_collapse"}
    assert names({"response_length": 10.0}, steps=1) == set()


def test_entropy_collapses() -> None:
    # 2 at the start: below 0.5
    assert names({"entropy": 0.49}, steps=1) == {"entropy_collapse"}
    assert names({"entropy": 0.5}, steps=1) == set()


def test_too_much_is_clipped() -> None:
    assert names({"clip_fraction": 0.51}) == {"clip_fraction_high"}
    assert names({"clip_fraction": 0.5}) == set()


def test_values_worse_than_the_mean_for_long() -> None:
    bad = {"explained_variance": -0.1}
    assert names(*[bad] * LONG) == {"explained_variance_negative"}
    assert names(*[bad] * (LONG - 1)) == set()
    assert names(*[bad] * (LONG - 1), {"explained_variance": 0.0}) == set()
    assert names(bad, {"explained_variance": 0.1}, *[bad] * (LONG - 1)) == set()


def test_engine_and_learner_disagree() -> None:
    assert names({"engine_mismatch": 0.051}) == {"engine_mismatch"}
    assert names({"engine_mismatch": 0.049}) == set()


def test_what_an_older_policy_sampled_differs_without_a_mistake() -> None:
    assert names({"engine_mismatch": 0.2, "staleness": 1.0}) == set()


def test_over_optimisation_is_rising_scores_with_rising_doubt() -> None:
    # means of the first and the last three steps: score 1 → 2, uncertainty 0.2 → 0.31 > 1.5·0.2
    both = {"score_mean": 2.0, "uncertainty_mean": 0.31}
    assert names(both, both, both, steps=3) == {"over_optimisation"}
    assert names(both, both, steps=3) == set()
    for half in ({"score_mean": 2.0}, {"uncertainty_mean": 0.31}, {"score_mean": 2.0, "uncertainty_mean": 0.29}):
        assert names(half, half, half, steps=3) == set()
    # K=1 has no uncertainty: 0 > 1.5·0 must not fire.
    single = [{"uncertainty_mean": 0.0}] * 3 + [{"uncertainty_mean": 0.0, "score_mean": 2.0}] * 3
    assert names(*single) == set()


def test_repetition_rises() -> None:
    # 0.02 at the start: above max(2·0.02, 0.02 + 0.05) = 0.07
    loops = {"rep4": 0.071}
    assert names(loops, loops, loops, steps=3) == {"repetition_rising"}
    assert names(loops, loops, steps=3) == set()
    fewer = {"rep4": 0.069}
    assert names(fewer, fewer, fewer, steps=3) == set()


def test_an_alert_tells_value_threshold_and_what_to_do() -> None:
    (alert,) = watch([{**HEALTHY, "kl_sequence": 25.0}], kl_target=1.0)
    assert alert.message.startswith("kl_exploded: 25 (threshold 10). ")
    assert "kl.beta" in alert.hint
    assert not alert.fatal
