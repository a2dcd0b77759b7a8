"""From a cell's evaluations and its job's metrics to points of its curves, and what they say. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

Result = Mapping[str, Any]

AROUND = 2
"""Steps on both sides over which a checkpoint's KL is averaged: the 64 samples of one step tell it to a third."""


def kl_at(rows: Sequence[Mapping[str, Any]], step: int) -> float:
    """KL to the base model of the policy after so many steps, nats per sequence.

    Args:
        rows: of the job's metrics; row i is about samples of the policy after i steps, so that nothing is known about
            the policy that the job ends with: the mean over its neighbours stands for it.
        step: 0 is the base model, whose KL is 0.
    """
    if step == 0:
        return 0.0
    return fmean(row["kl_sequence"] for row in rows[max(0, step - AROUND) : step + AROUND + 1])


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval (normal approximation). Args: values, one a prompt, at least two."""
    array = np.asarray(values, dtype=np.float64)
    half = 1.96 * float(array.std(ddof=1)) / math.sqrt(len(array))
    mean = float(array.mean())
    return mean, mean - half, mean + half


def by_prompt(values: Sequence[float], samples: int) -> list[float]:
    """Means over a prompt's samples. Args: values, a prompt's samples one after the other; samples, of a prompt."""
    return [float(mean) for mean in np.asarray(values, dtype=np.float64).reshape(-1, samples).mean(axis=1)]


def make_point(
    step: int, kl: float, gold: Sequence[float], proxy: Sequence[float], figures: Mapping[str, float]
) -> dict[str, Any]:
    """One point of a cell's curves.

    Args:
        step: of the checkpoint.
        kl: nats per sequence.
        gold: the rubric's, one a prompt.
        proxy: what PPO maximises, one a prompt, without the penalties that do not come from the reward models.
        figures: means of the same responses, kept as they are.
    """
    gold_mean, *gold_ci = mean_interval(gold)
    proxy_mean, *proxy_ci = mean_interval(proxy)
    return {
        "step": step,
        "kl": kl,
        "gold": gold_mean,
        "gold_ci95": gold_ci,
        "proxy": proxy_mean,
        "proxy_ci95": proxy_ci,
        **figures,
        "gold_by_prompt": list(gold),
    }


def summarise_run(result: Result) -> dict[str, Any]:
    """Start, best and end of one run; `gain` is paired by prompt, with its 95 % interval."""
    points = result["points"]
    start, end = points[0], points[-1]
    best = max(points, key=lambda point: point["gold"])
    gain, low, high = mean_interval(
        [after - before for before, after in zip(start["gold_by_prompt"], end["gold_by_prompt"], strict=True)]
    )
    return {
        "seed": result["seed"],
        "variant": result["variant"],
        "steps": end["step"],
        "stopped": result["stopped"],
        "gold_start": start["gold"],
        "gold_end": end["gold"],
        "gold_gain": gain,
        "gold_gain_ci95": [low, high],
        "gold_best": best["gold"],
        "best_step": best["step"],
        "proxy_start": start["proxy"],
        "proxy_at_best": best["proxy"],
        "proxy_end": end["proxy"],
        "kl_end": end["kl"],
        "accuracy": result["reward_model_accuracy"],
    }


def summarise_variants(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over seeds, by variant."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[run["variant"]].append(run)
    names = ("gold_start", "gold_end", "gold_gain", "gold_best", "proxy_start", "proxy_end", "kl_end", "accuracy")
    return {
        variant: {"seeds": len(group), **{name: fmean(run[name] for run in group) for name in names}}
        for variant, group in groups.items()
    }


def compare_ends(runs: Sequence[Mapping[str, Any]], one: str, other: str) -> dict[str, Any] | None:
    """Gold at the end, `one` minus `other`, over the seeds that have both; None without any."""
    ends = {(run["variant"], run["seed"]): run["gold_end"] for run in runs}
    seeds = sorted({seed for _, seed in ends if (one, seed) in ends and (other, seed) in ends})
    if not seeds:
        return None
    differences = [ends[one, seed] - ends[other, seed] for seed in seeds]
    return {"seeds": seeds, "by_seed": differences, "mean": fmean(differences)}
