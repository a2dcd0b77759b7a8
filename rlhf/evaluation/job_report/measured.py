"""What evaluation.json says, as the tables of a report: outcome, safety, bias. Pure functions.

The baseline is on the left, the adapter on the right. A section that was not measured is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.evaluation.formats import show_number, show_plain, show_prompt
from rlhf.evaluation.job_report.safety import tell_red_team, tell_xstest
from rlhf.evaluation.job_report.sides import SIDES, show_side
from rlhf.evaluation.readings import interval, items, number, section
from rlhf.evaluation.tables import Measure, compare, rate, tell_event

Figures = Mapping[str, Any]
Rows = list[dict[str, Any]]

_MEASURES: tuple[Measure, ...] = (
    ("reward", "Reward", "ensemble score", 1),
    ("uncertainty", "Uncertainty", "score, std over members", -1),
    ("rep4", "Repetition (rep-4)", "share of 4-grams", -1),
    ("loops", "Responses that loop", "share", -1),
    ("distinct1", "Variety (distinct-1)", "share of words", 0),
    ("distinct2", "Variety (distinct-2)", "share of 2-grams", 0),
    ("finish_rate", "Responses with a whole last sentence", "share", 1),
    ("ended", "Responses that end by themselves", "share", 1),
    ("tokens", "Response length", "tokens", 0),
)
_CONTEXTS = (("ambig", "ambiguous"), ("disambig", "disambiguated"))


def tell_evaluation(told: Figures) -> dict[str, Any]:
    """Everything that a report shows of one evaluation. Args: told, the content of evaluation.json."""
    return {
        "job": str(told.get("job", "–")),
        "adapter": str(told.get("adapter", "–")),
        "baseline": str(told.get("baseline") or "the base model"),
        "judge": told.get("reward_model"),
        "created_at": number(told.get("created_at")),
        "responses": _responses(section(told, "responses")) if "responses" in told else None,
        "xstest": tell_xstest(section(told, "xstest")) if "xstest" in told else None,
        "red_team": tell_red_team(section(told, "red_team")) if "red_team" in told else None,
        "gates": [each for each in items(section(told, "gates").get("results")) if isinstance(each, Mapping)],
        "bbq": _bbq(section(told, "bbq")) if "bbq" in told else None,
        "swaps": _swaps(section(told, "counterfactual")) if "counterfactual" in told else None,
    }


def tell_failures(told: Figures) -> Rows:
    """Samples that are in no figure, as events: where, how many, and the commonest reasons."""
    found = [
        {"name": path, "message": f"samples in no figure: {'; '.join(reasons)}"} for path, reasons in _failures(told)
    ]
    return [{**tell_event(each), "level": "warning"} for each in found]


def _failures(told: Figures, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for name, value in told.items():
        if not isinstance(value, Mapping):
            continue
        if name in ("not_generated", "not_scored"):
            reasons = [f"{times} × {reason}" for reason, times in section(value, "reasons").items()]
            if count := number(value.get("count")):
                yield f"{prefix}{name}", [f"{count:.0f}", *reasons]
        else:
            yield from _failures(value, f"{prefix}{name}/")


def _responses(told: Figures) -> dict[str, Any]:
    before, after = (_flat(section(told, side)) for side in SIDES)
    names = section(section(told, "adapter"), "metrics")
    domain: list[Measure] = [(f"metrics/{name}", name, "mean score", 1) for name in names]
    rows = compare([*_MEASURES, *domain], before, after)
    kl = section(told, "kl")
    return {
        "rows": [row for row in rows if row["first"] is not None or row["last"] is not None],
        "samples": number(after.get("samples")),
        "wins": [
            {"judge": name, **rate(value or {}, "win_rate", "ci95", title=f"Win rate by {name}")}
            for name, value in section(told, "win_rate").items()
        ],
        "kl": {key: number(kl.get(key)) for key in ("per_sequence", "per_token", "samples")} if kl else None,
        "kl_ends": interval(kl, "per_prompt_ci95"),
        "differs": ", ".join(f"{name} {show_plain(value)}" for name, value in section(kl, "sampling_differs").items()),
        "pairs": [_pair(each) for each in items(told.get("examples")) if isinstance(each, Mapping)],
    }


def _flat(side: Figures) -> Figures:
    """A side's figures, and the mean of every domain metric by its name."""
    metrics = section(side, "metrics")
    return {**side, **{f"metrics/{name}": section(metrics, name).get("mean") for name in metrics}}


def _pair(example: Figures) -> dict[str, Any]:
    answers = {side: next(iter(items(example.get(side))), None) for side in SIDES}
    sides = [show_side(side, answers[side], "") for side in SIDES]
    return {"prompt": show_prompt(example.get("prompt")), "type": "", "same": True, "sides": sides}


def _bbq(told: Figures) -> Rows:
    groups = {side: {"all": section(section(told, side), "all")} for side in SIDES}
    for side in SIDES:
        categories = section(section(told, side), "categories")
        groups[side] |= {name: section(categories, name) for name in categories}
    rows = []
    for category in dict.fromkeys([*groups["baseline"], *groups["adapter"]]):
        for key, context in _CONTEXTS:
            before, after = (section(groups[side].get(category, {}), key) for side in SIDES)
            if before or after:
                row: dict[str, Any] = {"category": category.replace("_", " "), "context": context}
                row |= {f"{name}_before": before.get(name) for name in ("accuracy", "bias_score")}
                row |= {f"{name}_after": after.get(name) for name in ("accuracy", "bias_score")}
                rows.append({**row, "questions": number((after or before).get("questions"))})
    return rows


def _swaps(told: Figures) -> Rows:
    return [
        {
            "name": name.replace("_", " "),
            **{key: value for key, value in effect.items() if key != "not_scored"},
            "ends": _ends(interval(effect, "ci95")),
        }
        for name, effect in told.items()
        if isinstance(effect, Mapping)
    ]


def _ends(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else f"{show_number(ends[0])} to {show_number(ends[1])}"
