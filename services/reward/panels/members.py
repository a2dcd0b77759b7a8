"""What a member of a panel is: a raw score a sample, brought to the scale of reference responses."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Protocol

from rlhf.contracts.errors import Conflict
from rlhf.contracts.reward import RewardSample, SampleFailure
from services.reward.panels.promises import then

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawScore:
    """One sample's number, on the member's own scale, and what was read for it as far as is known."""

    value: float
    truncated: bool = False
    tokens: int = 0


RawOutcome = RawScore | SampleFailure


class Member(Protocol):
    """One scorer of a panel.

    Attributes:
        name: for messages.
        remote: whether another server computes it, so that `score` returns before it is done.
    """

    name: str
    remote: bool

    def score(self, samples: Sequence[RewardSample]) -> Future[list[RawOutcome]]:
        """An outcome a sample; the exception is a ServiceError when none can be scored now."""


@dataclass(frozen=True)
class Scale:
    """A standardised score is (raw - mean) / std."""

    mean: float
    std: float


class ScaledMember:
    """A member with its scale, which is that of the reference responses unless it is given."""

    def __init__(self, member: Member, scale: Scale | None, reference: Sequence[RewardSample]) -> None:
        """Args: scale, None: taken from the reference, with the first samples that are scored."""
        self.member, self.scale, self._reference = member, scale, reference

    def fit(self) -> None:
        """Takes the scale now. Raises Conflict when the reference gives none."""
        self.score([]).result()

    def score(self, samples: Sequence[RewardSample]) -> Future[list[RawOutcome]]:
        """Standardised scores; a number that is not finite is a failure."""
        extra = [] if self.scale is not None else self._reference

        def standardise(raw: list[RawOutcome]) -> list[RawOutcome]:
            scale = self.scale or self._fit(raw[: len(extra)])
            return [self._standardised(outcome, scale) for outcome in raw[len(extra) :]]

        return then(self.member.score([*extra, *samples]), standardise)

    def _fit(self, raw: Sequence[RawOutcome]) -> Scale:
        values = []
        for index, outcome in enumerate(raw):
            if isinstance(outcome, SampleFailure) or not math.isfinite(outcome.value):
                said = outcome.error if isinstance(outcome, SampleFailure) else f"it gave {outcome.value}"
                raise Conflict(
                    f"{self.member.name} has no score for sample {index} of the panel's reference: {said}; take the "
                    "sample out, or give the member mean and std"
                )
            values.append(outcome.value)
        scale = Scale(fmean(values), pstdev(values))
        if scale.std < 1e-6:
            raise Conflict(
                f"{self.member.name} scores all {len(values)} samples of the panel's reference {scale.mean:.6g}; give "
                "the panel a reference whose responses differ, or the member mean and std"
            )
        log.info("member standardised", extra={"member": self.member.name, "mean": scale.mean, "std": scale.std})
        self.scale = scale
        return scale

    def _standardised(self, outcome: RawOutcome, scale: Scale) -> RawOutcome:
        if isinstance(outcome, SampleFailure):
            return SampleFailure(error=f"{self.member.name}: {outcome.error}", error_type=outcome.error_type)
        value = (outcome.value - scale.mean) / scale.std
        if not math.isfinite(value):
            error = f"{self.member.name} gave {outcome.value}, which is no score; look into that model"
            return SampleFailure(error=error, error_type="scoring")
        return RawScore(value, outcome.truncated, outcome.tokens)
