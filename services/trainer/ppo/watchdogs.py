"""Watchdogs: named signs that a run does not learn, or learns the wrong thing. Pure functions of the metrics.

Each alert gives the value, the threshold and a hint; fatal ones stop the job with the last good checkpoint kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Metrics = Mapping[str, float]

NAMES = (
    "clip_fraction_high",
    "engine_mismatch",
    "entropy_collapse",
    "explained_variance_negative",
    "kl_exploded",
    "kl_negative",
    "kl_zero",
    "length_collapse",
    "all_at_length_limit",
    "not_finite",
    "over_optimisation",
    "policy_loss_constant",
    "policy_loss_zero",
    "repetition_rising",
    "reward_constant",
)
"""Of every alert."""

LONG = 10
"""Steps after which what is normal early on no longer is."""


@dataclass(frozen=True)
class Alert:
    """One finding.

    Attributes:
        name: stable, for dashboards and tests.
        value: what was seen.
        threshold: what it was compared with.
        hint: the likely cause and what to do.
        fatal: the job stops.
    """

    name: str
    value: float
    threshold: float
    hint: str
    fatal: bool = False

    @property
    def message(self) -> str:
        """One line for people."""
        return f"{self.name}: {self.value:.4g} (threshold {self.threshold:.4g}). {self.hint}"


def watch(history: Sequence[Metrics], *, kl_target: float) -> list[Alert]:
    """Findings about the newest row.

    Args:
        history: one row a step, oldest first, at least one.
        kl_target: nats per sequence.
    """
    return [alert for check in _CHECKS for alert in check(history, kl_target)]


def _not_finite(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    for name in ("policy_loss", "value_loss", "kl_sequence", "reward_mean", "grad_norm"):
        if not math.isfinite(history[-1][name]):
            hint = f"{name} is not finite; lower the learning rate and look at the rewards of this step"
            yield Alert("not_finite", history[-1][name], 0.0, hint, fatal=True)


def _dead_loss(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    losses = [row["policy_loss"] for row in history[-3:]]
    if losses[-1] == 0.0:
        hint = "the policy loss is exactly 0: advantages are all 0, or the mask is empty; look at reward_std"
        yield Alert("policy_loss_zero", losses[-1], 0.0, hint)
    elif len(losses) == 3 and len(set(losses)) == 1:
        yield Alert("policy_loss_constant", losses[-1], 0.0, "three equal losses in a row: nothing is being updated")


def _dead_kl(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    # The first step's KL is 0 by construction: the fresh adapter is the reference, and stays it in the value warm-up.
    updates = sum(1 for row in history[:-1] if not row.get("value_only"))
    if updates and history[-1]["kl_sequence"] == 0.0:
        hint = "KL is exactly 0 after an update: the adapter does not change the policy, or its updates are lost"
        yield Alert("kl_zero", 0.0, 0.0, hint, fatal=updates > 2)


def _kl_out_of_bounds(history: Sequence[Metrics], target: float) -> Iterator[Alert]:
    kl = history[-1]["kl_sequence"]
    if kl > 10 * target:
        hint = "the policy has left the reference far behind; raise kl.beta or lower the learning rate"
        yield Alert("kl_exploded", kl, 10 * target, hint)
    noise = 0.1 + 0.5 * target
    if kl < -noise:
        hint = "KL is an average of log(π/π_ref) over π's samples; far below 0 means other weights sampled them"
        yield Alert("kl_negative", kl, -noise, hint)


def _flat_reward(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    if history[-1]["reward_std"] == 0.0:
        hint = "all samples of the step have one reward: nothing to learn from; look at the reward model"
        yield Alert("reward_constant", 0.0, 0.0, hint)


def _lengths(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    recent = history[-3:]
    if len(recent) == 3 and all(row["eos_rate"] == 0.0 for row in recent):
        hint = "no response ended in three steps; raise rollout.max_new_tokens or rollout.missing_eos_penalty"
        yield Alert("all_at_length_limit", 0.0, 0.0, hint)
    start, now = history[0]["response_length"], history[-1]["response_length"]
    if now < 0.25 * start:
        yield Alert("length_collapse", now, 0.25 * start, "responses shrank to a quarter: is shortness rewarded?")


def _entropy(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    start, now = history[0]["entropy"], history[-1]["entropy"]
    if now < 0.25 * start:
        yield Alert("entropy_collapse", now, 0.25 * start, "the policy becomes deterministic; raise kl.beta")


def _clipping(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    if history[-1]["clip_fraction"] > 0.5:
        hint = "most tokens are clipped: lower the learning rate or the epochs"
        yield Alert("clip_fraction_high", history[-1]["clip_fraction"], 0.5, hint)


def _explained_variance(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    recent = [row["explained_variance"] for row in history[-LONG:]]
    if len(recent) == LONG and max(recent) < 0:
        hint = f"the value head has predicted returns worse than their mean for {LONG} steps; raise value_coefficient"
        yield Alert("explained_variance_negative", recent[-1], 0.0, hint)


def _engine_mismatch(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    # Under an older policy's samples the difference is mostly what was learned since.
    if history[-1]["engine_mismatch"] > 0.05 and not history[-1].get("staleness"):
        hint = (
            "engine and learner disagree about the sampled tokens' log-probabilities: is the policy serving this "
            "step's adapter at this temperature, or are penalties on?"
        )
        yield Alert("engine_mismatch", history[-1]["engine_mismatch"], 0.05, hint)


def _over_optimisation(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    if len(history) < 6:
        return
    first, last = history[:3], history[-3:]
    rise = _mean(last, "score_mean") - _mean(first, "score_mean")
    doubt, start = _mean(last, "uncertainty_mean"), _mean(first, "uncertainty_mean")
    if rise > 0 and doubt > 1.5 * start > 0:
        hint = "scores rise while the ensemble agrees less: over-optimisation; raise aggregation.lambda or kl.beta"
        yield Alert("over_optimisation", doubt, 1.5 * start, hint)


def _repetition(history: Sequence[Metrics], _: float) -> Iterator[Alert]:
    start, now = _mean(history[:3], "rep4"), _mean(history[-3:], "rep4")
    if len(history) >= 6 and now > max(2 * start, start + 0.05):
        yield Alert("repetition_rising", now, max(2 * start, start + 0.05), "responses repeat themselves more and more")


def _mean(rows: Sequence[Metrics], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


_CHECKS: tuple[Callable[[Sequence[Metrics], float], Iterator[Alert]], ...] = (
    _not_finite,
    _dead_loss,
    _dead_kl,
    _kl_out_of_bounds,
    _flat_reward,
    _lengths,
    _entropy,
    _clipping,
    _explained_variance,
    _engine_mismatch,
    _over_optimisation,
    _repetition,
)
