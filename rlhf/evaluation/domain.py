"""Domain metrics: scores of single responses, some against references. Own ones come by entry points.

A package adds a metric as a function of an `Exchange` that returns a number, higher is better, in the group
`rlhf.metrics` of its entry points:

    [project.entry-points."rlhf.metrics"]
    polite = "my_package.politeness:score"

What it cannot score raises NotScorable (any other exception is taken the same way): such a response is counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from rlhf.contracts.base import Prompt
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.evaluation import (
    ExactMatchMetric,
    JsonMetric,
    LengthMetric,
    Metric,
    PatternMetric,
    PluginMetric,
    RougeMetric,
)
from rlhf.contracts.patterns import Pattern
from rlhf.evaluation.text_metrics import outside_range, words

GROUP = "rlhf.metrics"


@dataclass(frozen=True)
class Exchange:
    """What a metric scores.

    Attributes:
        prompt: text or conversation.
        response: the policy's.
        references: right or good answers; may be none.
    """

    prompt: Prompt
    response: str
    references: tuple[str, ...] = ()


class NotScorable(ValueError):
    """A metric has no score for this response; says why."""


Scorer = Callable[[Exchange], float]


def build_scorers(metrics: Sequence[Metric]) -> dict[str, Scorer]:
    """The functions of metrics, by name.

    Raises:
        InvalidInput: entry points or packages are missing; names them all.
    """
    scorers: dict[str, Scorer] = {}
    wrong = []
    for metric in metrics:
        try:
            scorers[metric.name] = build_scorer(metric)
        except InvalidInput as error:
            wrong.append(f"metric {metric.name!r}: {error}")
    if wrong:
        raise InvalidInput("; ".join(wrong))
    return scorers


def build_scorer(metric: Metric) -> Scorer:
    """The function of one metric.

    Raises:
        InvalidInput: its entry point or package is missing.
    """
    match metric:
        case ExactMatchMetric():
            return lambda exchange: _exact_match(metric, exchange)
        case RougeMetric():
            return _rouge(metric)
        case JsonMetric():
            return lambda exchange: float(is_json(exchange.response, metric.required))
        case PatternMetric():
            pattern = Pattern(metric.pattern, ignore_case=metric.ignore_case)
            return lambda exchange: float(pattern.occurs_in(exchange.response))
        case LengthMetric():
            return lambda exchange: length_score(len(words(exchange.response)), metric.least, metric.most)
        case PluginMetric():
            return _plugin(metric.entry_point)


def score_all(scorer: Scorer, exchanges: Sequence[Exchange]) -> tuple[list[float | None], list[str]]:
    """Scores, None where there is none, and the reasons of those."""
    scores: list[float | None] = []
    reasons = []
    for exchange in exchanges:
        try:
            score = float(scorer(exchange))
            if not math.isfinite(score):
                raise NotScorable(f"the score is {score}")
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and one response must not end a job
            reasons.append(str(error) if isinstance(error, NotScorable) else f"{type(error).__name__}: {error}")
            scores.append(None)
        else:
            scores.append(score)
    return scores, reasons


def is_json(text: str, required: Sequence[str] = ()) -> bool:
    """Whether a text is one JSON value (RFC 8259: NaN is none), and an object with these keys where there are any."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return not required or (isinstance(value, dict) and all(key in value for key in required))


def length_score(count: int, least: int, most: int) -> float:
    """1 from `least` to `most`; else 1 - (missing or too many) / (the bound passed), at least 0. Counts of words."""
    return 1 + outside_range(count, least, most)


def _exact_match(metric: ExactMatchMetric, exchange: Exchange) -> float:
    def normal(text: str) -> str:
        return text.strip().casefold() if metric.ignore_case else text.strip()

    return float(normal(exchange.response) in {normal(reference) for reference in _references(exchange)})


def _rouge(metric: RougeMetric) -> Scorer:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise InvalidInput("ROUGE needs the package rouge-score; pip install 'rlhf-services[evaluation]'") from error
    scorer = RougeScorer([metric.variant], use_stemmer=metric.stemmer)

    def best(exchange: Exchange) -> float:
        scores = [scorer.score(reference, exchange.response) for reference in _references(exchange)]
        return max(float(score[metric.variant].fmeasure) for score in scores)

    return best


def _plugin(name: str) -> Scorer:
    found = [each for each in entry_points(group=GROUP) if each.name == name]
    if not found:
        known = ", ".join(sorted(each.name for each in entry_points(group=GROUP))) or "none"
        raise InvalidInput(f"no entry point {name!r} in the group {GROUP}; installed: {known}")
    try:
        scorer: Scorer = found[0].load()
    except Exception as error:  # importing somebody's package may raise anything
        raise InvalidInput(f"entry point {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return scorer


def _references(exchange: Exchange) -> tuple[str, ...]:
    if not exchange.references:
        raise NotScorable("the prompt has no references")
    return exchange.references


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
