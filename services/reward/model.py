"""What the scorer scores by: a reward model of K members, whatever they are, and the outcome of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from rlhf.contracts.errors import ServiceError
from rlhf.contracts.reward import SampleFailure
from services.reward.texts import Sample


@dataclass(frozen=True)
class MemberScores:
    """One sample's K standardised scores, all finite, the tokens that were read for them, and its novelty if known."""

    members: list[float]
    truncated: bool
    tokens: int
    novelty: float | None = None


Outcome = MemberScores | SampleFailure


class RewardModel(Protocol):
    """K scorers whose standardised scores stand side by side."""

    @property
    def members(self) -> int:
        """K."""

    def score(self, samples: Sequence[Sample]) -> Future[list[Outcome]]:
        """An outcome a sample, in their order.

        What this process computes is computed before the call returns, on the scorer's thread; what other servers
        compute completes the future later. Its exception is a ServiceError when no sample can be scored now.
        """


def failure(error: ServiceError) -> SampleFailure:
    """What stands in place of a sample."""
    return SampleFailure(error=error.message, error_type=error.error_type)
