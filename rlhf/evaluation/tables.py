"""Rows of the tables that reports share: before and after, events, accuracies, one figure with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf.evaluation.charts import interval_bar, share_bar
from rlhf.evaluation.formats import show_number
from rlhf.evaluation.readings import interval, number, series

Measure = tuple[str, str, str, int]
"""Key, name, unit, and what is better: 1 more, -1 less, 0 neither (less variety is wrong only when checks say so)."""


def compare(measures: Iterable[Measure], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a measure: its value in both, the change, and whether that is better, worse, the same or neither ("")."""
    rows = []
    for key, name, unit, better in measures:
        first, last = number(before.get(key)), number(after.get(key))
        change = None if first is None or last is None else last - first
        rows.append(
            {"name": name, "unit": unit, "first": first, "last": last, "change": change}
            | {"judged": _judge(change, better)}
        )
    return rows


def _judge(change: float | None, better: int) -> str:
    if change is None or better == 0:
        return ""
    if change == 0:
        return "same"
    return "better" if change * better > 0 else "worse"


def rate(part: Mapping[str, Any], key: str, ends: str, *, title: str, reference: float = 0.5) -> dict[str, Any]:
    """A share with its interval, as numbers and drawn. Args: key, ends, where they are; title, of the drawing."""
    point, limits = number(part.get(key)), interval(part, ends)
    bar = None
    if point is not None and limits is not None:
        told = f"{title} {point:.1%}, 95% interval {limits[0]:.1%} to {limits[1]:.1%}"
        bar = interval_bar(point, *limits, title=told, reference=reference)
    return {"point": point, "ends": limits, "n": number(part.get("n")), "bar": bar}


def accuracies(part: Mapping[str, Any]) -> dict[str, Any]:
    """A reward model's accuracies as bars, and its facts. Args: part, its figures, as metrics.json has them."""
    baseline = number(part.get("accuracy_length_baseline"))
    named = [("Ensemble", number(part.get("accuracy_ensemble")))]
    named += [(f"Member {i}", value) for i, value in enumerate(series(part, "accuracy_members"), start=1)]
    named += [("Length alone", baseline)]
    facts = {key: number(part.get(key)) for key in ("members", "train_pairs", "eval_pairs", "ece")}
    return {"rows": bars(named), **facts}


def bars(named: Iterable[tuple[str, float | None]]) -> list[dict[str, Any]]:
    """Shares, each with a bar that has a dashed line at one half."""
    return [
        {
            "name": name,
            "value": value,
            "bar": None if value is None else share_bar(value, title=f"{name}: {value:.1%}", reference=0.5),
        }
        for name, value in named
    ]


def tell_event(warning: object) -> dict[str, Any]:
    """One event: a plain string, or a mapping whose unknown keys are shown too."""
    if not isinstance(warning, Mapping):
        warning = {"message": str(warning)}
    told = ("name", "step", "message", "value", "threshold", "hint")
    event = {key: warning.get(key) for key in told}
    for key in ("value", "threshold"):
        event[key] = show_number(event[key]) if number(event[key]) is not None else str(event[key] or "–")
    event["more"] = ", ".join(f"{key}: {value}" for key, value in warning.items() if key not in told)
    return event


def span(steps: Sequence[int]) -> str:
    """Where something happened: a step, or the first and the last of several and how often."""
    if not steps:
        return "–"
    first, last = min(steps), max(steps)
    if len(steps) == 1:
        return str(first)
    return f"{first}–{last} ({len(steps)} ×)" if first != last else f"{first} ({len(steps)} ×)"
