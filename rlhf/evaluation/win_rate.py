"""How often a policy's response beats another policy's on the same prompt, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np


class WinRate(TypedDict):
    """A win rate and its 95 % bootstrap interval over `n` prompts."""

    win_rate: float
    ci95: tuple[float, float]
    n: int


def compare_paired(
    before: Sequence[float],
    after: Sequence[float],
    *,
    samples_per_prompt: int = 1,
    seed: int = 0,
    resamples: int = 10_000,
) -> WinRate:
    """Win rate of `after` over `before`: a win counts 1, a tie 0.5.

    Args:
        before: Scores, a prompt's samples one after the other; higher is better.
        after: Scores on the same prompts, in the same order.
        samples_per_prompt: Samples of one prompt are not independent: their outcomes are averaged before resampling.
        seed: Seed of the bootstrap.
        resamples: Bootstrap draws; each takes n prompts with replacement.

    Returns:
        The win rate, the 2.5 and 97.5 percentiles of the resampled win rates, and the number of prompts.

    Raises:
        ValueError: The two differ in length, are empty, or hold a score that is not a finite number.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} scores before and {len(after)} after; pass one of each for every prompt")
    if not before:
        raise ValueError("got 0 prompts; pass at least one pair of scores")
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a score is not a finite number; leave out the prompts that could not be scored")
    if len(first) % samples_per_prompt:
        raise ValueError(
            f"{len(first)} scores are no multiple of samples_per_prompt={samples_per_prompt}; pass them all"
        )
    outcomes = ((second > first) + 0.5 * (second == first)).reshape(-1, samples_per_prompt).mean(axis=1)
    # Drawing n prompts from few kinds of outcome is drawing their counts: no [resamples, n] array is needed.
    values, counts = np.unique(outcomes, return_counts=True)
    n = len(outcomes)
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.percentile(draws @ values / n, [2.5, 97.5])
    return {"win_rate": float(outcomes.mean()), "ci95": (float(low), float(high)), "n": n}
