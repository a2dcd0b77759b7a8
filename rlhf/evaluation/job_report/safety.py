"""What evaluation.json says of refusals, by XSTest and by red-team prompts, as tables of a report. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.evaluation.formats import show_prompt
from rlhf.evaluation.job_report.sides import SIDES, show_side
from rlhf.evaluation.readings import interval, items, number, section
from rlhf.evaluation.tables import Measure, compare

Figures = Mapping[str, Any]
Rows = list[dict[str, Any]]

_REFUSALS = (
    ("over_refusal", "safe", "Over-refusal of safe prompts", -1),
    ("refusal", "unsafe", "Refusal of unsafe prompts", 1),
)
_ATTACKS = (("refusal", "Refused", 1), ("unsafe", "Found unsafe by the classifier", -1))


def tell_xstest(told: Figures) -> dict[str, Any]:
    """Rates, rates by type, and pairs of answers. Args: told, `xstest` of evaluation.json."""
    rows, types, pairs = [], [], []
    for key, label, name, better in _REFUSALS:
        parts = {side: section(section(told, side), key) for side in SIDES}
        rows.append(_rate_row(name, better, parts))
        of_type = {side: section(parts[side], "by_type") for side in SIDES}
        for kind in sorted({*of_type["baseline"], *of_type["adapter"]}):
            measure: Measure = (kind, kind.replace("_", " "), label, better)
            types += compare([measure], of_type["baseline"], of_type["adapter"])
        pairs += _pairs(f"{label} prompt", parts)
    return {"rows": rows, "types": types, "pairs": pairs}


def tell_red_team(told: Figures) -> dict[str, Any]:
    """Rates over all prompts and by category, and pairs of answers. Args: told, `red_team` of evaluation.json."""
    rows = []
    for key, name, better in _ATTACKS:
        parts = {side: section(section(told, side), key) for side in SIDES}
        if not any(parts.values()):
            continue
        rows.append({**_rate_row(name, better, parts), "group": "all"})
        groups = {side: section(parts[side], "by_category") for side in SIDES}
        for group in sorted({*groups["baseline"], *groups["adapter"]}):
            own = {side: section(groups[side], group) for side in SIDES}
            rows.append({**_rate_row(name, better, own), "group": group.replace("_", " ")})
    return {"rows": rows, "pairs": _pairs("", {side: section(told, side) for side in SIDES})}


def _rate_row(name: str, better: int, parts: Mapping[str, Figures]) -> dict[str, Any]:
    """A rate of both sides with its intervals; a change within them is neither better nor worse."""
    row = compare([("rate", name, "", better)], parts["baseline"], parts["adapter"])[0]
    ends = {side: interval(parts[side], "ci95") for side in SIDES}
    if row["judged"] in ("better", "worse") and _overlap(ends["baseline"], ends["adapter"]):
        row["judged"] = "within intervals"
    return {**row, "ends": ends, "prompts": number(parts["adapter"].get("prompts"))}


def _overlap(first: tuple[float, float] | None, second: tuple[float, float] | None) -> bool:
    return first is None or second is None or (first[0] <= second[1] and second[0] <= first[1])


def _pairs(name: str, parts: Mapping[str, Figures]) -> Rows:
    """Examples of a label, by the prompts that both sides have."""
    found: dict[str, dict[str, Figures]] = {}
    for side in SIDES:
        for each in items(parts[side].get("examples")):
            if isinstance(each, Mapping):
                found.setdefault(show_prompt(each.get("prompt")), {})[side] = each
    return [
        {
            "prompt": prompt,
            "type": name,
            "same": True,
            "sides": [
                show_side(side, each.get("response"), _verdict(each))
                for side in SIDES
                if (each := answers.get(side)) is not None
            ],
        }
        for prompt, answers in found.items()
    ]


def _verdict(answer: Figures) -> str:
    """What the judges say of an answer: XSTest's class, or whether it refuses and is unsafe."""
    if "verdict" in answer:
        return str(answer["verdict"]).replace("_", " ")
    told = "refused" if answer.get("refused") else "not refused"
    unsafe = answer.get("unsafe")
    return told if unsafe is None else f"{told}, found {'unsafe' if unsafe else 'safe'}"
