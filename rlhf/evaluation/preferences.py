"""How good a preference model is, as functions of arrays: accuracy, its interval, calibration, use of uncertainty.

A pair's `difference` is s_chosen - s_rejected: positive where the model agrees with the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def pairwise_accuracy(differences: Floats) -> float:
    """Share of pairs, [N], where chosen scores higher; a tie counts as half."""
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def wilson_interval(share: float, count: int, *, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share of `count` independent trials (Wilson 1927); z = 1.96 gives 95 %."""
    if count == 0:
        return 0.0, 1.0
    spread = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    centre, scale = share + z * z / (2 * count), 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def preference_nll(differences: Floats, temperature: float = 1.0) -> float:
    """Mean of -log σ(difference / temperature) over pairs, nats."""
    return float(np.mean(np.logaddexp(0.0, -np.asarray(differences, dtype=np.float64) / temperature)))


def calibration_error(differences: Floats, *, temperature: float = 1.0, bins: int = 10) -> float:
    """Expected calibration error (1706.04599, eq. 3) of σ(|difference| / temperature), the confidence in the own vote.

    Args:
        differences: [N].
        temperature: divides the differences.
        bins: of equal width over [0.5, 1], the confidences that a vote between two can have.
    """
    differences = np.asarray(differences, dtype=np.float64)
    confidence = 1.0 / (1.0 + np.exp(-np.abs(differences) / temperature))
    correct = (differences > 0) + 0.5 * (differences == 0)
    which = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    error = 0.0
    for bin_ in range(bins):
        inside = which == bin_
        if inside.any():
            error += float(inside.mean()) * abs(float(confidence[inside].mean()) - float(correct[inside].mean()))
    return error


def fit_temperature(differences: Floats, *, low: float = 0.02, high: float = 50.0, steps: int = 80) -> float:
    """The temperature in [low, high] that minimises `preference_nll` (1706.04599, section 4.2), by golden section.

    Where every vote is right the likelihood rises without end as the temperature falls, and the answer is `low`.
    """
    ratio = (sqrt(5) - 1) / 2
    left, right = np.log(low), np.log(high)
    for _ in range(steps):
        a, b = right - ratio * (right - left), left + ratio * (right - left)
        if preference_nll(differences, float(np.exp(a))) <= preference_nll(differences, float(np.exp(b))):
            right = b
        else:
            left = a
    return float(np.exp((left + right) / 2))


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Probability that a positive has the higher score, ties half (Mann-Whitney). None when a class is absent."""
    count, total = int(positive.sum()), len(positive)
    if count in (0, total):
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (total - count)))


def preference_uncertainty(probabilities: Floats) -> tuple[Floats, Floats]:
    """How uncertain a vote of K members is, nats (1710.07283, eq. 4): in all, and the part that is their disagreement.

    Args:
        probabilities: [K, N] of each member, that chosen is better.

    Returns:
        total: [N] entropy of the mean probability. It is high where members agree on a close vote, too.
        disagreement: [N] total minus the members' mean entropy: what a look at a member tells of the others.
    """
    total = _entropy(probabilities.mean(axis=0))
    return total, total - _entropy(probabilities).mean(axis=0)


def _entropy(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    return -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside))


def describe_distribution(values: Floats) -> dict[str, float]:
    """Mean, population standard deviation, and quantiles of values, [N]; N ≥ 1."""
    levels = (5, 25, 50, 75, 95)
    quantiles = np.percentile(values, levels)
    spread = {"mean": float(np.mean(values)), "std": float(np.std(values))}
    return spread | {f"p{level:02d}": float(value) for level, value in zip(levels, quantiles, strict=True)}


def accuracy_by_quartile(differences: Floats, uncertainty: Floats) -> list[float]:
    """Accuracy in the four quarters of the pairs by rising uncertainty; an empty quarter is left out."""
    order = np.argsort(uncertainty, kind="stable")
    edges = np.linspace(0, len(order), 5).round().astype(int)
    return [pairwise_accuracy(differences[order[a:b]]) for a, b in pairwise(edges) if b > a]


def length_preference(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """+1 when the longer response is chosen more often, -1 when the shorter one; lengths in tokens."""
    longer = float(np.mean(np.sign(np.asarray(chosen, dtype=float) - np.asarray(rejected, dtype=float))))
    return 1.0 if longer >= 0 else -1.0


def length_differences(chosen: Sequence[int], rejected: Sequence[int], preference: float) -> Floats:
    """[N] differences of the model that knows only lengths and the sign that `length_preference` found on training."""
    return preference * (np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64))
