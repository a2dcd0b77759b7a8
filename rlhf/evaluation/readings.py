"""Reads numbers out of a report that may be incomplete: what is absent or not finite is None, never 0 or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Series = list[float | None]

EXPECTED: dict[str, tuple[str, ...]] = {
    "reward_model": (
        "members",
        "train_pairs",
        "eval_pairs",
        "accuracy_ensemble",
        "accuracy_members",
        "accuracy_length_baseline",
        "ece",
    ),
    "ppo": (
        "steps",
        "samples",
        "tokens",
        "policy_loss",
        "value_loss",
        "kl_sequence",
        "kl_token",
        "kl_target",
        "beta",
        "reward_mean",
        "uncertainty_mean",
        "entropy",
        "clip_fraction",
        "explained_variance",
        "ratio_first_minibatch",
        "response_length",
        "eos_rate",
    ),
    "before": (
        "gold_mean",
        "proxy_mean",
        "uncertainty_mean",
        "rep4",
        "distinct2",
        "eos_rate",
        "length_mean",
        "samples",
    ),
    "after": ("gold_mean", "proxy_mean", "uncertainty_mean", "rep4", "distinct2", "eos_rate", "length_mean", "samples"),
    "win_rate": ("gold", "gold_ci95", "n"),
    "warnings": (),
    "seeds": (),
    "durations_s": (),
    "peak_memory_mib": (),
    "versions": (),
}
"""Every key of report.json, by section."""


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else (null, NaN, infinity, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def section(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return one section of a report, empty when it is absent."""
    found = report.get(key)
    return found if isinstance(found, Mapping) else {}


def items(value: object) -> list[Any]:
    """Return a list's items; none when it is not a list."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else []


def series(part: Mapping[str, Any], key: str) -> Series:
    """Return one value a PPO step, None where a step has no finite value."""
    return [number(value) for value in items(part.get(key))]


def interval(part: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    """Return a pair (low, high), or None unless both are there and finite."""
    ends = series(part, key)
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    return ends[0], ends[1]


def missing_keys(report: Mapping[str, Any]) -> list[str]:
    """Name what a complete report would hold and this one does not: absent or null keys, and series without a value.

    An empty `warnings` is complete: no watchdog fired.
    """
    missing = []
    for name, keys in EXPECTED.items():
        value = report.get(name)
        if value is None or (name != "warnings" and not value):
            missing.append(name)
            continue
        part = section(report, name)
        missing += [f"{name}.{key}" for key in keys if part.get(key) is None or part.get(key) == []]
    return missing
