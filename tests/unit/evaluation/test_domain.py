"""Domain metrics on responses with a known score."""

import math
from importlib.metadata import EntryPoint

import pytest
from pydantic import TypeAdapter

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.evaluation import Metric
from rlhf.evaluation import domain
from rlhf.evaluation.domain import Exchange, NotScorable, build_scorer, build_scorers, is_json, length_score, score_all

METRIC: TypeAdapter[Metric] = TypeAdapter(Metric)


def scorer(**fields: object) -> domain.Scorer:
    return build_scorer(METRIC.validate_python({"name": "m", **fields}))


def said(response: str, *references: str) -> Exchange:
    return Exchange("a prompt", response, references)


def test_exact_match() -> None:
    match = scorer(kind="exact_match")
    assert match(said(" Paris\n", "London", "paris")) == 1.0
    assert match(said("Paris.", "Paris")) == 0.0
    assert scorer(kind="exact_match", ignore_case=False)(said("Paris", "paris")) == 0.0
    with pytest.raises(NotScorable, match="no references"):
        match(said("Paris"))


def test_rouge_by_hand() -> None:
    # rouge-1: all 3 words of "the cat sat" are among the 6 of the reference: P = 1, R = 1/2, F = 2/3. rouge-L the same,
    # since they stand in order; rouge-2: 2 of 2 and 2 of 5 pairs: F = 2 * 0.4 / 1.4.
    exchange = said("the cat sat", "a dog", "the cat sat on the mat")
    assert scorer(kind="rouge", variant="rouge1")(exchange) == pytest.approx(2 / 3)
    assert scorer(kind="rouge")(exchange) == pytest.approx(2 / 3)
    assert scorer(kind="rouge", variant="rouge2")(exchange) == pytest.approx(0.8 / 1.4)


@pytest.mark.parametrize(
    ("text", "required", "valid"),
    [
        (' {"a": [1, null]}\n', [], True),
        ("3", [], True),
        ("3", ["a"], False),
        ('{"a": 1}', ["a"], True),
        ('{"a": 1}', ["a", "b"], False),
        ("{'a': 1}", [], False),
        ('{"a": NaN}', [], False),
        ("[" * 100_000, [], False),
        ("", [], False),
    ],
)
def test_json(text: str, required: list[str], valid: bool) -> None:
    assert is_json(text, required) is valid


def test_patterns_search_anywhere() -> None:
    number = scorer(kind="pattern", pattern=r"answer is \d+")
    assert number(said("The ANSWER IS 42.")) == 1.0
    assert number(said("The answer is none.")) == 0.0


def test_length_falls_on_both_sides() -> None:
    # 2 of at least 4 words; 15 of at most 10, 5 too many; 25, over twice the most.
    assert [length_score(count, 4, 10) for count in (2, 4, 10, 15, 25)] == [0.5, 1.0, 1.0, 0.5, 0.0]
    assert scorer(kind="length", most=3)(said("One, two; three!")) == 1.0


def test_plug_ins_come_from_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    here = EntryPoint("sines", "math:sin", domain.GROUP)
    monkeypatch.setattr(domain, "entry_points", lambda group: [here] if group == domain.GROUP else [])
    assert scorer(kind="plugin", entry_point="sines") is math.sin
    wrong = [METRIC.validate_python({"kind": "plugin", "name": n, "entry_point": f"no-{n}"}) for n in ("a", "b")]
    with pytest.raises(InvalidInput, match=r"metric 'a': no entry point 'no-a'.*installed: sines; metric 'b'"):
        build_scorers(wrong)


def test_what_a_metric_cannot_score_is_no_zero() -> None:
    def picky(exchange: Exchange) -> float:
        if exchange.response == "nan":
            return math.nan
        if exchange.response == "none":
            raise NotScorable("no reason")
        return len(exchange.response) / (len(exchange.response) - 2)

    scores, reasons = score_all(picky, [said(text) for text in ("four", "nan", "none", "ab")])
    assert scores == [2.0, None, None, None]
    assert reasons == ["the score is nan", "no reason", "ZeroDivisionError: division by zero"]
