"""How often a policy's response beats another policy's on the same prompt, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from rlhf.evaluation.bootstrap import RESAMPLES, mean_interval


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
    resamples: int = RESAMPLES,
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
    first, second = _finite(before), _finite(after)
    if len(first) % samples_per_prompt:
        raise ValueError(
            f"{len(first)} scores are no multiple of samples_per_prompt={samples_per_prompt}; pass them all"
        )
    outcomes = ((second > first) + 0.5 * (second == first)).reshape(-1, samples_per_prompt).mean(axis=1)
    return _over_prompts(outcomes.tolist(), seed, resamples)


def compare_groups(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], *, seed: int = 0, resamples: int = RESAMPLES
) -> WinRate | None:
    """Win rate of `after` over `before` where a prompt's samples were drawn independently, and some have no score.

    A prompt's outcome is the mean over all pairs of a sample before and a sample after.

    Args:
        before: Scores of each prompt's samples; higher is better.
        after: Scores on the same prompts, in the same order.
        seed: Seed of the bootstrap.
        resamples: Bootstrap draws; each takes n prompts with replacement.

    Returns:
        As compare_paired, over the prompts with a score on both sides; None when there is no such prompt.

    Raises:
        ValueError: The two differ in length, or hold a score that is not a finite number.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} prompts before and {len(after)} after; pass the same ones")
    outcomes = []
    for earlier, later in zip(before, after, strict=True):
        first, second = _finite(earlier)[:, None], _finite(later)[None, :]
        if first.size and second.size:
            outcomes.append(float(((second > first) + 0.5 * (second == first)).mean()))
    return _over_prompts(outcomes, seed, resamples) if outcomes else None


def _over_prompts(outcomes: Sequence[float], seed: int, resamples: int) -> WinRate:
    interval = mean_interval(outcomes, seed=seed, resamples=resamples)
    return {"win_rate": float(np.mean(outcomes)), "ci95": interval, "n": len(outcomes)}


def _finite(scores: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a score is not a finite number; leave out the prompts that could not be scored")
    return values
