"""Gates: what the figures of an evaluation must hold for an adapter to be accepted. The grammar, and an outcome."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf.contracts.base import Contract

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = re.compile(r"\s*(<=|>=|<|>)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_GATE = re.compile(r"\s*([^<>=]+?)\s*([<>=].*)", re.DOTALL)

Gates = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=256)], Annotated[str, Field(max_length=64)]],
    Field(max_length=64),
]
"""A figure's path, such as `xstest/change/over_refusal`, to a comparison, such as `<= 0.05`."""


@dataclass(frozen=True)
class Comparison:
    """`<= 0.05`. Attributes: sign, one of OPERATORS; bound, finite."""

    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether a figure keeps to it; NaN never does."""
        return OPERATORS[self.sign](value, self.bound)


def parse_comparison(text: str) -> Comparison:
    """A comparison from its text: a sign and a number, of which `+0.05` is one.

    Raises:
        ValueError: it is another text, or its number is not finite.
    """
    match = _COMPARISON.fullmatch(text)
    if match is None or not math.isfinite(float(match[2])):
        raise ValueError(f"{text!r} is no comparison; write one of {' '.join(OPERATORS)} and a number, such as <= 0.05")
    return Comparison(match[1], float(match[2]))


def read_gates(texts: Iterable[str]) -> dict[str, str]:
    """Figure to comparison, as a job takes them. Args: texts, each `FIGURE <= NUMBER`.

    Raises:
        ValueError: one is no gate, or a figure has two.
    """
    gates: dict[str, str] = {}
    for text in texts:
        match = _GATE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no gate; write a figure, a comparison and a number: a/b <= 0.05")
        if match[1] in gates:
            raise ValueError(f"{match[1]} is given twice; a figure has one gate")
        gates[match[1]] = match[2].strip()
    return gates


class GateResult(Contract):
    """What became of one gate."""

    figure: str
    gate: str = Field(description="the comparison, as it was submitted")
    value: float | None = Field(description="of the figure; null: the evaluation has none, and the gate failed")
    held: bool

    def describe(self) -> str:
        """In a sentence's words, for people."""
        if self.value is None:
            return f"{self.figure} has no value (gate {self.gate}): nothing that it rests on could be measured"
        return f"{self.figure} is {self.value:.4g} (gate {self.gate})"


class GatesOutcome(Contract):
    """`gates` of evaluation.json."""

    passed: bool = Field(description="whether all held")
    results: list[GateResult]

    @property
    def failed(self) -> list[str]:
        """The gates that did not hold, in words."""
        return [each.describe() for each in self.results if not each.held]
