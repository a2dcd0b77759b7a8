"""Which version of the policy did best: pure, from the metrics so far, so that a resumed run chooses the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.contracts.jobs import PpoJobConfig

WINDOW = 5
"""Steps whose mean counts: one lucky batch of prompts must not decide."""

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Best:
    """The best version, with means over the WINDOW versions that end with it.

    Attributes:
        step: steps that it has learned; its adapter is `job@step`.
        reward: mean reward of its samples.
        kl: KL per sequence, nats.
    """

    step: int
    reward: float
    kl: float


def objective(row: Metrics, config: PpoJobConfig) -> float:
    """What PPO maximises, per response: reward - penalties - β·KL (1909.08593, eq. 2), in units of the reward.

    β is the job's `kl.beta`, where it starts, and not what the controller made of it: versions are compared over steps.

    Args:
        row: metrics of a step.
        config: of the job.
    """
    repeated = row["repeated_tokens"] * row["response_length"]
    penalty = config.rollout.repeated_ngram_penalty * repeated
    return row["reward_mean"] - penalty - config.kl.beta * row["kl_sequence"]


def find_best(history: Sequence[Metrics], config: PpoJobConfig) -> Best | None:
    """The version with the highest mean objective; of equal ones the earliest. None before WINDOW steps are done.

    A version is judged by the step that it sampled, `max_staleness` steps after the step that made it; so the last
    versions of a run, which sample nothing, are not judged. Only versions with a checkpoint count.

    Args:
        history: one row for each finished step, oldest first.
        config: of the job.
    """
    staleness = config.rollout.max_staleness
    best, highest = None, float("-inf")
    for end in range(WINDOW, len(history) + 1):
        version = end - 1 - staleness
        if version < 1 or version % config.checkpoint_every:
            continue
        rows = history[end - WINDOW : end]
        value = _mean([objective(row, config) for row in rows])
        if value > highest:
            highest = value
            best = Best(
                version, _mean([row["reward_mean"] for row in rows]), _mean([row["kl_sequence"] for row in rows])
            )
    return best


def judges_any(config: PpoJobConfig) -> bool:
    """Whether a job of so many steps has a version that find_best can choose."""
    versions = (end - 1 - config.rollout.max_staleness for end in range(WINDOW, config.steps + 1))
    return any(version >= 1 and version % config.checkpoint_every == 0 for version in versions)


def unjudged(steps: int, config: PpoJobConfig) -> range:
    """Versions whose samples are still to be learned from when so many steps are done."""
    return range(steps - config.rollout.max_staleness, steps + 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
