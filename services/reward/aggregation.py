"""How K member scores become one reward. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt

from rlhf.contracts.reward import Aggregation


@dataclass(frozen=True)
class Aggregate:
    """One sample's reward, the mean of its members' scores, and their population standard deviation."""

    reward: float
    score: float
    uncertainty: float


def aggregate(members: Sequence[float], how: Aggregation) -> Aggregate:
    """Aggregates one sample's scores (2310.02743, section 3: mean, worst case, uncertainty-weighted).

    Args:
        members: K standardised scores, all finite.
        how: method and λ.
    """
    count = len(members)
    mean = fsum(members) / count
    # The population formula: one member is certain of itself (0), where the sample formula would give NaN.
    variance = fsum((score - mean) ** 2 for score in members) / count
    std = sqrt(variance)
    rewards = {
        "mean": mean,
        "min": min(members),
        "lcb": mean - how.lambda_ * std,
        "uwo": mean - how.lambda_ * variance,
    }
    return Aggregate(rewards[how.method], mean, std)
