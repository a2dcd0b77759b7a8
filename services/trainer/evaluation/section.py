"""What a part of an evaluation is: units of work that can be done one by one, and figures from all their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from services.trainer.evaluation.asking import Services

Row = dict[str, Any]
Sides = Mapping[str, str | None]
"""Who is measured: `adapter` and `baseline` to their reference; None is the base model."""
MOST_REASONS = 3


class Section(Protocol):
    """One measurement. A unit asks the services for a few items at once; its rows are JSON objects."""

    name: str

    @property
    def units(self) -> int:
        """How many there are."""

    def run(self, unit: int, services: Services) -> list[Row]:
        """The rows of a unit; the same ones whenever it is done. Args: unit, from 0."""

    def summarise(self, rows: list[Row]) -> dict[str, Any]:
        """JSON figures of all rows."""

    def check(self) -> None:
        """Raises InvalidInput when it cannot be done in this process, before anything is asked."""


def chunks(count: int, size: int) -> int:
    """Units of `size` items that hold `count`."""
    return -(-count // size)


def failures(reasons: Iterable[str]) -> dict[str, Any]:
    """How many samples have no score, and the commonest reasons."""
    counts = Counter(reasons)
    return {"count": counts.total(), "reasons": dict(counts.most_common(MOST_REASONS))}


def difference(after: float | None, before: float | None) -> float | None:
    """What changed; None where one of the two is unknown."""
    return None if after is None or before is None else after - before
