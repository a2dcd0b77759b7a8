"""The percentile bootstrap of a mean (Efron & Tibshirani 1993, chapter 13). No other statistics, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
_AT_A_TIME = 1_000_000
"""Counts drawn together: what bounds the memory."""


def mean_interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean of independent observations.

    Args:
        values: one an observation, at least one.
        seed: of the draws.
        resamples: each takes as many observations as there are, with replacement.
        level: share of the resampled means inside.

    Raises:
        ValueError: there is no observation, or one is not a finite number.
    """
    observed = np.asarray(values, dtype=np.float64)
    if not len(observed):
        raise ValueError("got 0 observations; pass at least one")
    if not np.isfinite(observed).all():
        raise ValueError("an observation is not a finite number; leave it out and count it")
    # Drawing n of n observations is drawing how often each kind of value comes: no [resamples, n] array is needed.
    kinds, counts = np.unique(observed, return_counts=True)
    n, generator = len(observed), np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _AT_A_TIME // len(kinds))
    for start in range(0, resamples, block):
        drawn = generator.multinomial(n, counts / n, size=min(block, resamples - start))
        means[start : start + len(drawn)] = drawn @ kinds / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
