"""Objectives by hand, and their weighted sum."""

from math import fsum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rlhf.contracts.reward import PREFERENCE_ALONE, Aggregation, Objective, Objectives, SampleFailure, SampleScore
from services.reward.model import MemberScores, Outcome
from services.reward.objectives import Asked, length, occurrence, repetition, reward_samples

OWN, OTHER = "rm-a@1", "rm-b@1"
MEAN = Aggregation()


def objectives(*bodies: dict[str, Any]) -> list[Objective]:
    return TypeAdapter(Objectives).validate_python(list(bodies))


def members(*scores: float) -> MemberScores:
    return MemberScores(list(scores), novelty=1.0, truncated=False, tokens=3)


def reward(asked: list[Objective], text: str, own: Outcome, other: Outcome | None = None) -> SampleScore:
    outcomes = {OWN: [own], OTHER: [other or members(0.0)]}
    (result,) = reward_samples(Asked(OWN, MEAN, asked), [text], outcomes)
    assert isinstance(result, SampleScore)
    return result


def test_repetition_by_hand() -> None:
    # a b c d a b c d: 4-grams abcd bcda cdab dabc abcd, 4 distinct of 5.
    assert repetition("a b c d a b c d", 4) == pytest.approx(-0.2)
    assert str(repetition("a b c d", 4)) == "0.0", "not -0.0"


@pytest.mark.parametrize(
    ("count", "value"),
    [
        # 4 to 10 words
        (0, -1.0),
        (1, -3 / 4),
        (3, -1 / 4),
        (4, 0.0),
        (10, 0.0),
        (11, -1 / 10),
        (15, -5 / 10),
        (20, -1.0),
        (50, -1.0),
    ],
)
def test_length_by_hand(count: int, value: float) -> None:
    assert length("word " * count, 4, 10) == pytest.approx(value)


def test_occurrence_of_any_pattern() -> None:
    texts = ["A bomb.", "the cat", "", "BOMBS"]
    assert occurrence(texts, [r"\bbomb\b", "CAT"], ignore_case=True) == [-1.0, -1.0, 0.0, 0.0]
    assert occurrence(texts, [r"\bbomb\b", "CAT"], ignore_case=False) == [-1.0, 0.0, 0.0, 0.0]


def test_a_reward_of_all_kinds_by_hand() -> None:
    asked = objectives(
        {"kind": "preference", "weight": 2.0},
        {"kind": "ensemble", "model": OTHER, "name": "harmless", "weight": 0.5, "aggregation": {"method": "min"}},
        {"kind": "repetition", "ngram": 1},
        {"kind": "length", "most": 2, "weight": 4.0},
        {"kind": "pattern", "patterns": ["no"], "weight": 3.0},
    )
    result = reward(asked, "no no no", members(1.0, 3.0), members(-1.0, 5.0))
    # Mean of 1, 3; least of -1, 5; 1 distinct word of 3; 1 word too many of 2; a pattern.
    values = {"preference": 2.0, "harmless": -1.0, "repetition": -2 / 3, "length": -0.5, "pattern": -1.0}
    assert result.objectives == pytest.approx(values)
    # 2·2 - 0.5·1 - 2/3 - 4·0.5 - 3·1 = -13/6
    assert result.reward == pytest.approx(-13 / 6)
    assert (result.score, result.uncertainty, result.members) == (2.0, 1.0, [1.0, 3.0])


def test_the_preference_alone_is_the_aggregated_reward_to_the_bit() -> None:
    asked = Asked(OWN, Aggregation.model_validate({"method": "lcb", "lambda": 1.0}), PREFERENCE_ALONE)
    (result,) = reward_samples(asked, ["x"], {OWN: [members(0.1, 0.2)]})
    assert isinstance(result, SampleScore)
    assert result.objectives == {"preference": result.reward}
    # Mean 0.15, deviation 0.05
    assert result.reward == pytest.approx(0.1)


def test_without_the_preference_its_score_is_told_and_not_rewarded() -> None:
    result = reward(objectives({"kind": "length", "most": 1}), "two words", members(7.0))
    assert (result.reward, result.score, result.objectives) == (-1.0, 7.0, {"length": -1.0})


def test_a_sample_that_misses_an_objective_fails_and_names_it() -> None:
    asked = Asked(OWN, MEAN, objectives({"kind": "preference"}, {"kind": "ensemble", "model": OTHER, "name": "safe"}))
    long = SampleFailure(error="500 tokens", error_type="scoring")
    own: list[Outcome] = [members(1.0), members(2.0), long]
    first, second, third = reward_samples(asked, ["x"] * 3, {OWN: own, OTHER: [long, members(3.0), members(4.0)]})
    assert first == SampleFailure(error="objective 'safe': 500 tokens", error_type="scoring")
    assert isinstance(second, SampleScore)
    assert second.reward == 5.0
    assert third == long


def test_models_are_scored_once_each_and_the_requests_own_first() -> None:
    asked = objectives(
        {"kind": "ensemble", "model": OTHER},
        {"kind": "ensemble", "model": OWN, "name": "worst", "aggregation": {"method": "min"}},
        {"kind": "ensemble", "model": OTHER, "name": "other_worst", "aggregation": {"method": "min"}},
    )
    assert Asked(OWN, MEAN, asked).models == [OWN, OTHER]


SCORES = st.floats(-100, 100)


@given(
    st.lists(st.floats(-100, 100), min_size=5, max_size=5),
    st.lists(SCORES, min_size=1, max_size=5),
    st.lists(SCORES, min_size=1, max_size=5),
    st.text("ab .", max_size=40),
)
def test_the_reward_is_the_weighted_sum(weights: list[float], own: list[float], other: list[float], text: str) -> None:
    bodies: list[dict[str, Any]] = [
        {"kind": "preference"},
        {"kind": "ensemble", "model": OTHER},
        {"kind": "repetition", "ngram": 2},
        {"kind": "length", "least": 2, "most": 5},
        {"kind": "pattern", "patterns": ["aba"]},
    ]
    asked = objectives(*({**body, "weight": weight} for body, weight in zip(bodies, weights, strict=True)))
    result = reward(asked, text, members(*own), members(*other))
    parts = [weight * result.objectives[body["kind"]] for weight, body in zip(weights, bodies, strict=True)]
    assert result.reward == pytest.approx(fsum(parts), abs=1e-9)
    assert all(-1 <= result.objectives[kind] <= 0 for kind in ("repetition", "length", "pattern"))


@pytest.mark.parametrize(
    ("bodies", "part"),
    [
        ([{"kind": "length", "most": 3}, {"kind": "length", "most": 9}], "give each a `name` of its own"),
        ([], "at least 1 item"),
        ([{"kind": "length", "least": 5, "most": 4}], "least=5 exceeds most=4"),
        ([{"kind": "length"}], "most"),
        ([{"kind": "preference", "weight": float("nan")}], "finite"),
        ([{"kind": "preference", "weight": float("inf")}], "finite"),
        ([{"kind": "preference", "weight": 101}], "less than or equal to 100"),
        ([{"kind": "preference", "name": "Two words"}], "pattern"),
        ([{"kind": "ensemble", "model": "../x@1"}], "pattern"),
        ([{"kind": "pattern", "patterns": ["("]}], "unclosed group"),
        ([{"kind": "pattern", "patterns": ["x*"]}], "occurs in an empty text"),
        ([{"kind": "toxicity"}], "'toxicity'"),
    ],
)
def test_what_makes_no_sense_is_refused(bodies: list[dict[str, Any]], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        objectives(*bodies)
    assert part in str(caught.value)
