"""The figures that an evaluation yields, by path: what gates may name. Pure, from the settings alone.

Paths are those of the job's metrics. Counts of reasons and of verdicts are no figures: one that is 0 stands nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from rlhf.contracts.gates import parse_comparison

if TYPE_CHECKING:
    from rlhf.contracts.evaluation import BbqConfig, CounterfactualConfig, Measurements, ResponsesConfig, XsTestConfig
    from rlhf.contracts.red_team import RedTeamConfig

SIDES = ("adapter", "baseline")
TEXT = ("tokens", "ended", "finish_rate", "rep4", "loops", "distinct1", "distinct2")
BBQ = ("questions", "unscored", "without_target", "accuracy", "unknown_share", "non_unknown", "biased")
DIFFERENCES = ("mean_difference", "mean_absolute_difference", "largest_absolute_difference", "standardised_difference")
BOUNDS = ("low", "high")
"""Of an interval."""
CI95 = tuple(f"ci95/{bound}" for bound in BOUNDS)
DEFAULT_NAMES = ("names_women", "names_men")
"""Of the swaps that stand for `names: null`."""

COMPARED = 200
"""Paths that are compared letter by letter to find the nearest."""
MOST_TOLD = 12
"""Figures that a message lists."""


def known_figures(measured: Measurements) -> set[str]:
    """Every path that an evaluation of these settings can have a value for."""
    found: set[str] = set()
    if measured.responses is not None:
        found |= _under("responses", _responses(measured.responses, rewarded=measured.reward_model is not None))
    if measured.xstest is not None:
        found |= _under("xstest", _xstest(measured.xstest))
    if measured.bbq is not None:
        found |= _under("bbq", (f"{side}/{figure}" for side in SIDES for figure in _bbq(measured.bbq)))
    if measured.counterfactual is not None:
        found |= _under("counterfactual", _counterfactual(measured.counterfactual))
    if measured.red_team is not None:
        found |= _under("red_team", _red_team(measured.red_team))
    return found


def wrong_gates(gates: Mapping[str, str], measured: Measurements | None) -> list[str]:
    """What is wrong with gates, each with its cure. Args: measured, the evaluation's settings; None: there is none."""
    wrong = []
    for figure, gate in gates.items():
        try:
            parse_comparison(gate)
        except ValueError as error:
            wrong.append(f"gates: {figure}: {error}")
    if measured is None:
        return wrong + (["gates compare figures of an evaluation; give `evaluation`, or no gates"] if gates else [])
    known = known_figures(measured)
    return wrong + [_unknown(figure, known) for figure in gates if figure not in known]


def _unknown(figure: str, known: set[str]) -> str:
    section = figure.partition("/")[0]
    measured = sorted({each.partition("/")[0] for each in known})
    told = f"gates: {figure!r} is no figure of this evaluation"
    if section not in measured:
        return f"{told}, which measures {', '.join(measured)}; name one of theirs, or add the section"
    if {"ci95", *BOUNDS} & set(figure.split("/")) and (intervals := _intervals(section, known)):
        return f"{told}; of its section these have bounds, low and high: {_list(intervals)}"
    nearest = _nearest(figure, known)
    group = nearest.rpartition("/")[0]
    beside = sorted(each.removeprefix(f"{group}/") for each in known if each.startswith(f"{group}/"))
    return f"{told}; the nearest is {nearest!r}, {group}/ has {_list(beside)}, docs/evaluation.md has all"


def _intervals(section: str, known: set[str]) -> list[str]:
    ends = [each.removesuffix(f"/{BOUNDS[0]}") for each in known if each.endswith(f"ci95/{BOUNDS[0]}")]
    return sorted(each for each in ends if each.startswith(f"{section}/"))


def _list(names: list[str]) -> str:
    more = len(names) - MOST_TOLD
    return ", ".join(names[:MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _nearest(figure: str, known: set[str]) -> str:
    parts = set(figure.split("/"))
    most = max(len(parts & set(each.split("/"))) for each in known)
    alike = sorted(each for each in known if len(parts & set(each.split("/"))) == most)
    return get_close_matches(figure, alike[:COMPARED], n=1, cutoff=0)[0]


def _under(prefix: str, names: Iterable[str]) -> set[str]:
    return {f"{prefix}/{name}" for name in names}


def _responses(config: ResponsesConfig, *, rewarded: bool) -> Iterator[str]:
    judges = [*(["reward"] if rewarded else []), *(metric.name for metric in config.metrics)]
    of_side = ["samples", "not_generated/count", *TEXT]
    of_side += ["not_scored/count", "reward", "uncertainty"] if rewarded else []
    for metric in config.metrics:
        of_side += [f"metrics/{metric.name}/{name}" for name in ("mean", "scored", "not_scored/count")]
    yield from (f"{side}/{name}" for side in SIDES for name in of_side)
    yield from (f"win_rate/{judge}/{name}" for judge in judges for name in ("win_rate", "n", *CI95))
    bounds = (f"per_prompt_{bound}" for bound in CI95)
    yield from (f"kl/{name}" for name in ("samples", "not_scored/count", "per_sequence", "per_token", *bounds))


def _xstest(config: XsTestConfig) -> Iterator[str]:
    for rate, label in (("over_refusal", "safe"), ("refusal", "unsafe")):
        types = {each.type for each in config.prompts if each.label == label}
        if not types:
            continue
        yield f"change/{rate}"
        for side in SIDES:
            yield from (f"{side}/{rate}/{name}" for name in ("prompts", "rate", *CI95, "not_generated/count"))
            yield from (f"{side}/{rate}/by_type/{each}" for each in types)


def _bbq(config: BbqConfig) -> Iterator[str]:
    yield "not_scored/count"
    for question in config.questions:
        for group in ("all", f"categories/{question.category}"):
            names = BBQ if question.target is None else (*BBQ, "bias_score")
            yield from (f"{group}/{question.context_condition}/{name}" for name in names)


def _counterfactual(config: CounterfactualConfig) -> Iterator[str]:
    names = DEFAULT_NAMES if config.names is None else [each.name for each in config.names]
    yield "samples"
    for swap in (*(["gender"] if config.gender else []), *names):
        yield from (
            f"{swap}/{name}" for name in ("pairs", "unscored", "mixed", "not_scored/count", *DIFFERENCES, *CI95)
        )


def _red_team(config: RedTeamConfig) -> Iterator[str]:
    categories = {each.category for each in config.prompts if each.category is not None}
    groups = ["", *(f"by_category/{each}/" for each in categories)]
    yield from (f"{side}/not_generated/count" for side in SIDES)
    if config.classifier is not None:
        yield from (f"{side}/not_scored/count" for side in SIDES)
    for rate in ("refusal", *(["unsafe"] if config.classifier is not None else [])):
        yield f"change/{rate}"
        names = ("prompts", "rate", *CI95)
        yield from (f"{side}/{rate}/{group}{name}" for side in SIDES for group in groups for name in names)
