"""Ranking by pairwise comparisons: the Bradley-Terry model, P(i beats j) = π_i / (π_i + π_j). Pure; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MOST_ROUNDS = 10_000
PRIOR = 0.1
"""Ties that `rank` adds between every two: who won everything then has a finite strength, too."""


@dataclass(frozen=True)
class Comparison:
    """One judgement between two.

    Attributes:
        left: name of one.
        right: name of the other.
        outcome: 1 when left won, 0 when right did, 0.5 for a tie.
    """

    left: str
    right: str
    outcome: float


@dataclass(frozen=True)
class Ranked:
    """One place of a ranking.

    Attributes:
        name: who.
        strength: log π, nats; the strengths of all sum to 0.
        ci95: of the strength, by bootstrap over comparisons.
        comparisons: that it took part in.
    """

    name: str
    strength: float
    ci95: tuple[float, float]
    comparisons: int


def rank(
    comparisons: Sequence[Comparison], *, prior: float = PRIOR, seed: int = 0, resamples: int = 1000
) -> list[Ranked]:
    """Everyone who was compared, the strongest first.

    Args:
        comparisons: at least one.
        prior: see fit_strengths.
        seed: of the bootstrap.
        resamples: each takes as many comparisons as there are, with replacement.

    Raises:
        ValueError: there are none, one is of somebody with himself, or an outcome is not in [0, 1].
    """
    _check(comparisons)
    names = sorted({name for each in comparisons for name in (each.left, each.right)})
    place = {name: index for index, name in enumerate(names)}
    left = np.array([place[each.left] for each in comparisons])
    right = np.array([place[each.right] for each in comparisons])
    outcomes = np.array([each.outcome for each in comparisons], dtype=np.float64)
    size, n = len(names), len(comparisons)
    strengths = fit_strengths(_wins(left, right, outcomes, size), prior=prior)
    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, n, n) for _ in range(resamples)]
    wins = np.stack([_wins(left[chosen], right[chosen], outcomes[chosen], size) for chosen in draws])
    # A draw may leave someone without a loss, whatever the data themselves have: draws never go without a prior.
    drawn = fit_strengths(wins, prior=max(prior, PRIOR), tolerance=1e-4)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    counts = np.bincount(np.concatenate([left, right]), minlength=size)
    ranked = [
        Ranked(name, float(strengths[i]), (float(low[i]), float(high[i])), int(counts[i]))
        for i, name in enumerate(names)
    ]
    return sorted(ranked, key=lambda each: (-each.strength, each.name))


def fit_strengths(wins: Floats, *, prior: float = 0.0, tolerance: float = 1e-9) -> Floats:
    """The maximum-likelihood strengths by the MM algorithm (Hunter 2004, eq. 3): π_i ← W_i / Σ_j n_ij / (π_i + π_j).

    Args:
        wins: [..., N, N], wins[i, j] how often i beat j; a tie is half a win of each.
        prior: so many ties more between every two; 0: none.
        tolerance: nats by which no strength moves any more at the end.

    Returns:
        [..., N] log π, nats, of mean 0.

    Raises:
        ValueError: the likelihood has no maximum: some never won against, lost to or met the others (Ford 1957).
    """
    size = wins.shape[-1]
    if prior == 0 and not _strongly_connected(wins.reshape(-1, size, size) > 0):
        raise ValueError(
            "some have won against, lost to or met none of the others, so their strength is infinite or unknown; "
            f"add comparisons, or a prior such as {PRIOR}"
        )
    wins = wins + prior / 2 * (1 - np.eye(size))
    games, won = wins + np.swapaxes(wins, -1, -2), wins.sum(axis=-1)
    strengths = np.zeros(won.shape)
    for _ in range(MOST_ROUNDS):
        pi = np.exp(strengths)
        updated = np.log(won / (games / (pi[..., :, None] + pi[..., None, :])).sum(axis=-1))
        updated -= updated.mean(axis=-1, keepdims=True)
        moved = float(np.abs(updated - strengths).max())
        strengths = updated
        if moved < tolerance:
            break
    return strengths


def _wins(left: NDArray[np.intp], right: NDArray[np.intp], outcomes: Floats, size: int) -> Floats:
    wins = np.zeros((size, size))
    np.add.at(wins, (left, right), outcomes)
    np.add.at(wins, (right, left), 1 - outcomes)
    return wins


def _strongly_connected(beat: NDArray[np.bool_]) -> bool:
    """Whether from everyone a chain of wins leads to everyone: i beat j, j beat k, ... Args: beat, [B, N, N]."""
    reached = beat | np.eye(beat.shape[-1], dtype=bool)
    for _ in range(beat.shape[-1].bit_length()):
        reached = (reached.astype(np.int64) @ reached.astype(np.int64)) > 0
    return bool(reached.all())


def _check(comparisons: Sequence[Comparison]) -> None:
    if not comparisons:
        raise ValueError("got 0 comparisons; pass at least one")
    for index, each in enumerate(comparisons):
        if each.left == each.right:
            raise ValueError(f"comparison {index} is of {each.left!r} with itself; leave it out")
        if not 0 <= each.outcome <= 1:
            raise ValueError(f"comparison {index} has the outcome {each.outcome}; give 1, 0 or 0.5 for a tie")
