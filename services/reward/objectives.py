"""What a reward is made of: the values of its objectives, and their weighted sum. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from rlhf.contracts.patterns import Pattern
from rlhf.contracts.reward import (
    Aggregation,
    EnsembleObjective,
    LengthObjective,
    Objective,
    PatternObjective,
    PreferenceObjective,
    RepetitionObjective,
    SampleFailure,
    SampleScore,
)
from rlhf.evaluation.text_metrics import outside_range, rep_n, words
from services.reward.aggregation import aggregate
from services.reward.model import MemberScores, Outcome


@dataclass(frozen=True)
class Asked:
    """What a request wants its rewards to be.

    Attributes:
        model: its own reward model, whose score and uncertainty are told whatever the objectives.
        aggregation: of that model's members.
        objectives: with names that differ.
    """

    model: str
    aggregation: Aggregation
    objectives: Sequence[Objective]

    @property
    def models(self) -> list[str]:
        """All reward models that are needed, each once, its own first."""
        further = [each.model for each in self.objectives if isinstance(each, EnsembleObjective)]
        return list(dict.fromkeys([self.model, *further]))


def reward_samples(
    asked: Asked, responses: Sequence[str], outcomes: Mapping[str, Sequence[Outcome]]
) -> list[SampleScore | SampleFailure]:
    """The result of each sample; one that misses an objective is a failure, never a sum of the others.

    Args:
        asked: the objectives.
        responses: N texts.
        outcomes: of every model of `asked.models`, N each.
    """
    own = outcomes[asked.model]
    # One that the reward model could not hold fails anyway, and may be as long as a body: it is not searched.
    texts = [text if isinstance(each, MemberScores) else "" for text, each in zip(responses, own, strict=True)]
    columns = {each.name: _column(asked, each, texts, outcomes) for each in asked.objectives}
    return [
        _result(asked, outcome, {name: column[index] for name, column in columns.items()})
        for index, outcome in enumerate(own)
    ]


def weighted_sum(objectives: Sequence[Objective], values: Mapping[str, float]) -> float:
    """Σ weight × value. Args: values, by the objectives' names."""
    return fsum(each.weight * values[each.name] for each in objectives)


def repetition(response: str, ngram: int) -> float:
    """-(share of repeated word n-grams), in (-1, 0]."""
    return 0.0 - rep_n(response, ngram)


def length(response: str, least: int, most: int) -> float:
    """How far the response's length is outside [least, most] words; see outside_range."""
    return outside_range(len(words(response)), least, most)


def occurrence(responses: Sequence[str], patterns: Sequence[str], *, ignore_case: bool) -> list[float]:
    """-1 for each response in which any pattern occurs, else 0."""
    found = [False] * len(responses)
    # One at a time: a compiled pattern may take megabytes.
    for expression in patterns:
        pattern = Pattern(expression, ignore_case=ignore_case)
        found = [seen or pattern.occurs_in(text) for seen, text in zip(found, responses, strict=True)]
    return [-1.0 if seen else 0.0 for seen in found]


def _column(
    asked: Asked, objective: Objective, texts: Sequence[str], outcomes: Mapping[str, Sequence[Outcome]]
) -> list[float | SampleFailure]:
    """One objective's values of all samples."""
    match objective:
        case PreferenceObjective():
            return [_preference(outcome, asked.aggregation) for outcome in outcomes[asked.model]]
        case EnsembleObjective():
            return [_preference(outcome, objective.aggregation) for outcome in outcomes[objective.model]]
        case RepetitionObjective():
            return [repetition(text, objective.ngram) for text in texts]
        case LengthObjective():
            return [length(text, objective.least, objective.most) for text in texts]
        case PatternObjective():
            return [*occurrence(texts, objective.patterns, ignore_case=objective.ignore_case)]


def _preference(outcome: Outcome, how: Aggregation) -> float | SampleFailure:
    return outcome if isinstance(outcome, SampleFailure) else aggregate(outcome.members, how).reward


def _result(asked: Asked, own: Outcome, values: Mapping[str, float | SampleFailure]) -> SampleScore | SampleFailure:
    if isinstance(own, SampleFailure):
        return own
    known: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, SampleFailure):
            return SampleFailure(error=f"objective {name!r}: {value.error}", error_type=value.error_type)
        known[name] = value
    total = aggregate(own.members, asked.aggregation)
    return SampleScore(
        reward=weighted_sum(asked.objectives, known),
        objectives=known,
        score=total.score,
        uncertainty=total.uncertainty,
        members=own.members,
        novelty=own.novelty,
        truncated=own.truncated,
    )
