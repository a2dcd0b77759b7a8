"""Judges gates: pure, from the figures of a finished evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rlhf.contracts.gates import GateResult, GatesOutcome, parse_comparison


def judge_gates(gates: Mapping[str, str], figures: Mapping[str, float]) -> GatesOutcome:
    """Which gates hold. A figure without a finite value fails its gate, whatever the comparison.

    Args:
        gates: figure to comparison, as checked at submission.
        figures: by path; those that could not be computed are absent or NaN.
    """
    results = []
    for figure, gate in gates.items():
        value = figures.get(figure, math.nan)
        known = math.isfinite(value)
        held = known and parse_comparison(gate).holds(value)
        results.append(GateResult(figure=figure, gate=gate, value=value if known else None, held=held))
    return GatesOutcome(passed=all(each.held for each in results), results=results)
