"""Several objectives in one request: each reported apart, and the reward their weighted sum."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.contract.reward.test_reward import SAMPLE, refuse, score

DOCUMENT = Path(__file__).parents[3] / "docs" / "reward.md"
LENGTH = {"kind": "length", "most": 3, "weight": 2.0}


def test_without_objectives_the_preference_is_the_reward(client: TestClient) -> None:
    (result,) = score(client, SAMPLE)["results"]
    assert result["objectives"] == {"preference": result["reward"]}
    assert score(client, SAMPLE, objectives=None)["results"] == [result]
    assert score(client, SAMPLE, objectives=[{"kind": "preference"}])["results"] == [result]


def test_each_objective_is_reported_apart_and_the_reward_is_their_weighted_sum(client: TestClient) -> None:
    asked = [
        {"kind": "preference", "weight": 0.5},
        {"kind": "ensemble", "model": "rm-a@2", "name": "other", "weight": -1.0},
        {"kind": "ensemble", "model": "rm-a@1", "name": "worst", "aggregation": {"method": "min"}, "weight": 0.0},
        {"kind": "repetition", "weight": 3.0},
        LENGTH,
        {"kind": "pattern", "patterns": [r"\bblue\b", "red"]},
    ]
    how = {"method": "lcb", "lambda": 1.0}
    (result,) = score(client, SAMPLE, objectives=asked, aggregation=how)["results"]
    (plain,) = score(client, SAMPLE, aggregation=how)["results"]
    (other,) = score(client, SAMPLE, model="rm-a@2")["results"]
    for name in ("score", "uncertainty", "members", "truncated"):
        assert result[name] == pytest.approx(plain[name], abs=1e-5)
    # "Air scatters blue light." has 4 words, 1 more than 3, no 4-gram twice, and a pattern.
    assert result["objectives"] == pytest.approx(
        {
            "preference": plain["reward"],
            "other": other["reward"],
            "worst": min(plain["members"]),
            "repetition": 0.0,
            "length": -1 / 3,
            "pattern": -1.0,
        },
        abs=1e-5,
    )
    by_hand = 0.5 * plain["reward"] - other["reward"] + 2.0 * -1 / 3 - 1.0
    assert result["reward"] == pytest.approx(by_hand, abs=1e-5)


def test_a_reward_of_text_alone_still_tells_score_and_uncertainty(client: TestClient) -> None:
    (result,) = score(client, SAMPLE, objectives=[LENGTH])["results"]
    assert result["reward"] == pytest.approx(-2 / 3)
    assert result["objectives"] == pytest.approx({"length": -1 / 3})
    assert len(result["members"]) == 3


def test_a_sample_that_one_ensemble_cannot_hold_fails_alone_and_names_the_objective(client: TestClient) -> None:
    long = {**SAMPLE, "response": "x" * 60}
    asked = [{"kind": "preference"}, {"kind": "ensemble", "model": "rm-short@1", "name": "short"}]
    fine, failed = score(client, {**SAMPLE, "response": "Yes."}, long, objectives=asked)["results"]
    assert set(fine["objectives"]) == {"preference", "short"}
    assert failed["error"].startswith("objective 'short': ")
    assert failed["error_type"] == "scoring"
    assert "score" in score(client, long)["results"][0]


def test_refusals_say_what_and_how_to_mend_it(client: TestClient) -> None:
    def refused(*objectives: dict[str, Any]) -> str:
        return refuse(client, 422, "validation", objectives=objectives)

    assert "2 objectives have the name 'length'; give each a `name`" in refused(LENGTH, LENGTH)
    assert "unclosed group" in refused({"kind": "pattern", "patterns": ["("]})
    assert "look-around" in refused({"kind": "pattern", "patterns": ["(?=x)y"]})
    assert "occurs in an empty text" in refused({"kind": "pattern", "patterns": ["a?"]})
    assert "weight" in refused({**LENGTH, "weight": 1e9})
    assert "factor: unknown field" in refused({**LENGTH, "factor": 1})
    assert "kind" in refused({"weight": 1.0})
    assert "rm-a@2" in refuse(client, 404, "not_found", objectives=[{"kind": "ensemble", "model": "rm-a@9"}])
    assert "corrupt" in refuse(client, 409, "conflict", objectives=[{"kind": "ensemble", "model": "rm-torn@1"}])


def test_the_documented_request_is_answered_as_documented(client: TestClient) -> None:
    (text,) = re.findall(r"--json '([^']*\"objectives\"[^']*)' \"\$REWARD_URL/reward\"", DOCUMENT.read_text())
    body = json.loads(text)
    (result,) = score(client, *body.pop("samples"), **body)["results"]
    # As the document says of its response: 5 words and at most 4, of 2 4-grams none twice, a pattern.
    values = result["objectives"]
    assert (values["repetition"], values["brevity"], values["phone"]) == (0.0, -0.25, -1.0)
    assert result["reward"] == pytest.approx(values["preference"] - 0.25 - 5.0)


def test_no_samples_no_results(client: TestClient) -> None:
    assert score(client, objectives=[LENGTH])["results"] == []
