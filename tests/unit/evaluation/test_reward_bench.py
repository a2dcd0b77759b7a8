"""A served reward model on triples, with a client that answers from a table."""

from __future__ import annotations

import pytest

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.reward import RewardRequest, RewardResponse, RewardTimings, SampleFailure, SampleScore
from rlhf.data.formats import TypedPair, read_preferences
from rlhf.evaluation.preferences import wilson_interval
from rlhf.evaluation.reward_bench import PAIRS_PER_REQUEST, describe, judge_pairs, summarise

REWARDS = {"best": 2.0, "good enough": 1.0, "bad": -1.0}


class FakeReward:
    """Scores the texts of REWARDS, and nothing else."""

    def __init__(self) -> None:
        self.requests: list[RewardRequest] = []

    def score(self, request: RewardRequest) -> RewardResponse:
        self.requests.append(request)
        results = [self._result(sample.response) for sample in request.samples]
        return RewardResponse(model="rm@1", results=results, timings=RewardTimings(queue_s=0, inference_s=0))

    def _result(self, text: str) -> SampleScore | SampleFailure:
        if text not in REWARDS:
            return SampleFailure(error=f"{text!r} has no score", error_type="scoring")
        reward = REWARDS[text]
        return SampleScore(reward=reward, objectives={}, score=0.0, uncertainty=0.0, members=[reward], truncated=False)


def triples(*rows: tuple[str, str, str]) -> list[TypedPair]:
    """(chosen, rejected, subset) as RewardBench has them."""
    return read_preferences(
        {
            "id": number,
            "prompt": f"Prompt {number}",
            "chosen": chosen,
            "chosen_model": "a",
            "rejected": rejected,
            "rejected_model": "b",
            "subset": subset,
        }
        for number, (chosen, rejected, subset) in enumerate(rows)
    ).pairs


def test_verdicts_by_hand() -> None:
    pairs = triples(
        ("best", "bad", "chat"),  # right
        ("bad", "best", "chat"),  # wrong
        ("best", "best", "chat"),  # a tie
        ("good enough", "bad", "safety"),  # right, and the longer one
        ("unknown", "bad", "safety"),  # no score
        ("best", "unknown", "safety"),  # no score
    )
    told = summarise(list(judge_pairs(FakeReward().score, pairs)))
    every = told["all"]
    # (1 + 0 + 0.5 + 1 + 0 + 0) / 6: a pair without a score is not right
    assert every["accuracy"] == pytest.approx(2.5 / 6)
    assert every["accuracy_ci95"] == pytest.approx(wilson_interval(2.5 / 6, 6))
    assert (every["pairs"], every["ties"], every["failed"]) == (6, 1, {"scoring": 2})
    assert every["first_failure"] == "'unknown' has no score"
    # Words: five ties and one longer: (5 / 2 + 1) / 6
    assert every["longer_is_preferred"] == pytest.approx(3.5 / 6)
    assert {name: own["accuracy"] for name, own in told["subsets"].items()} == {
        "chat": pytest.approx(1.5 / 3),
        "safety": pytest.approx(1 / 3),
    }


def test_pairs_are_sent_in_parts_and_judged_in_order() -> None:
    fake, done = FakeReward(), []
    rows = [("best", "bad", "one") if number % 2 else ("bad", "best", "one") for number in range(PAIRS_PER_REQUEST + 1)]
    judged = list(judge_pairs(fake.score, triples(*rows), model="rm@2", after_request=done.append))
    assert [each.credit for each in judged] == [float(number % 2) for number in range(len(rows))]
    assert [len(request.samples) for request in fake.requests] == [2 * PAIRS_PER_REQUEST, 2]
    assert {request.model for request in fake.requests} == {"rm@2"}
    assert done == [PAIRS_PER_REQUEST, len(rows)]
    # One subset is no table of its own.
    assert summarise(judged)["subsets"] == {}


def test_the_table_names_subsets_and_failures() -> None:
    told = describe(summarise(list(judge_pairs(FakeReward().score, triples(("best", "bad", "a"), ("?", "bad", "b"))))))
    lines = told.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["a", "b", "all"]
    assert lines[-2:] == ["1 failed (scoring), counted as wrong", "the first: '?' has no score"]


def test_a_response_of_several_turns_is_refused_before_anything_is_sent() -> None:
    turns = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"prompt": [{"role": "user", "content": "Hi"}], "chosen": turns, "rejected": turns[:1]}]
    fake = FakeReward()
    with pytest.raises(InvalidInput, match=r"pairs\.0\.chosen is a conversation of 2 turns"):
        list(judge_pairs(fake.score, read_preferences(rows).pairs))
    assert fake.requests == []
