"""What is measured of a side, and how rounds become figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

PHASES = ("rollout", "score", "learn", "other")


@dataclass(frozen=True)
class Step:
    """Seconds of one step: from the end of the step before to its own end.

    Attributes:
        total: of the step.
        rollout: sampling the responses.
        score: the reward model alone.
        learn: everything of the learner: log-probabilities, reference, values, update.
    """

    total: float
    rollout: float
    score: float
    learn: float

    @property
    def other(self) -> float:
        """Queue, checkpoint, publication, logging."""
        return self.total - self.rollout - self.score - self.learn


@dataclass(frozen=True)
class Round:
    """One side's steps without its first, which warms it up; memory in MiB, of all its processes together."""

    steps: list[Step]
    peak_mib: float


def summarise(rounds: Sequence[Round], samples: int) -> dict[str, Any]:
    """Figures of one side. Args: rounds, at least one; samples, of a step."""
    steps = [step for each in rounds for step in each.steps]
    totals = [step.total for step in steps]
    return {
        "steps": len(steps),
        "step_s": {"min": min(totals), "median": median(totals)},
        "samples_per_s": samples / median(totals),
        "split_s": {phase: median(getattr(step, phase) for step in steps) for phase in PHASES},
        "peak_mib": max(each.peak_mib for each in rounds),
        "rounds": [{"peak_mib": each.peak_mib, "steps": [asdict(step) for step in each.steps]} for each in rounds],
    }
