import pytest

from rlhf.contracts.jobs import PpoJobConfig
from rlhf.contracts.policy import GenerateRequest, GenerateResponse, GenerateTimings, Generation
from rlhf.contracts.reward import (
    Aggregation,
    PreferenceObjective,
    RewardRequest,
    RewardResponse,
    RewardTimings,
    SampleFailure,
    SampleScore,
)
from rlhf.demo.dataset import PromptRow, load_prompts
from rlhf.demo.heldout import Judged, NotScored, answer_prompts, describe_answers, judge_answers
from rlhf.demo.preset import EvaluationPreset

PRESET = EvaluationPreset(prompts=5, samples_per_prompt=1, max_new_tokens=7, temperature=0.7, prompts_per_request=2)
CONFIG = PpoJobConfig(
    kind="ppo",
    prompts=["x"],
    reward_model="rm-1@1",
    aggregation=Aggregation(method="lcb"),
    objectives=[PreferenceObjective(kind="preference", weight=2.0)],
)


class Policy:
    """Answers each prompt by its seed."""

    def __init__(self) -> None:
        self.requests: list[GenerateRequest] = []

    def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.requests.append(request)
        seed = request.sampling.seed
        assert seed is not None
        results = [generation(i, f"seed {seed}") for i in range(len(request.prompts))]
        timings = GenerateTimings(queue_s=0, inference_s=0)
        return GenerateResponse(model="m", adapter=request.adapter, policy_version=0, results=results, timings=timings)


def generation(index: int, text: str, reason: str = "eos_token", tokens: int = 4) -> Generation:
    return Generation(
        prompt_index=index, sample_index=0, text=text, finish_reason=reason, generated_tokens=tokens, seed=1
    )


def sample_score(reward: float, uncertainty: float) -> SampleScore:
    return SampleScore(
        reward=reward,
        objectives={"preference": reward},
        score=reward,
        uncertainty=uncertainty,
        members=[reward],
        truncated=False,
    )


def rows(count: int) -> list[PromptRow]:
    return load_prompts("heldout")[:count]


def test_prompts_go_in_requests_of_the_presets_size_with_the_same_seeds_each_time() -> None:
    policy, answered = Policy(), []
    for adapter in (None, "ppo-1@3"):
        answers = answer_prompts(rows(5), policy.generate, PRESET, seed=3, adapter=adapter, between=answered.append)
        assert len(answers) == 5
    assert [len(request.prompts) for request in policy.requests] == [2, 2, 1] * 2
    assert answered == [2, 4, 5] * 2
    seeds = [request.sampling.seed for request in policy.requests]
    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3
    assert [request.adapter for request in policy.requests] == [None] * 3 + ["ppo-1@3"] * 3


def test_proxy_scores_are_asked_for_as_in_training() -> None:
    asked: list[RewardRequest] = []

    def score(request: RewardRequest) -> RewardResponse:
        asked.append(request)
        timings = RewardTimings(queue_s=0, inference_s=0)
        return RewardResponse(model="rm-1@1", results=[sample_score(0.5, 0.1)], timings=timings)

    judged = judge_answers(rows(1), [generation(0, "Yes.")], score, CONFIG)
    assert (asked[0].model, asked[0].aggregation) == ("rm-1@1", CONFIG.aggregation)
    assert asked[0].objectives == CONFIG.objectives
    assert [turn.role for turn in asked[0].samples[0].prompt] == ["system", "user"]  # type: ignore[union-attr]
    assert judged.proxy[0].reward == 0.5
    assert 0 <= judged.gold[0] <= 1


def test_a_response_without_a_score_is_named_and_never_counted_as_0() -> None:
    def score(_: RewardRequest) -> RewardResponse:
        failure = SampleFailure(error="too long", error_type="scoring")
        return RewardResponse(model="r", results=[failure], timings=RewardTimings(queue_s=0, inference_s=0))

    with pytest.raises(NotScored, match=f"the response to {rows(1)[0]['id']}: too long"):
        judge_answers(rows(1), [generation(0, "Yes.")], score, CONFIG)


def test_means_are_over_prompts() -> None:
    generations = [generation(0, "a b a b", "eos_token", 4), generation(1, "a b", "length", 40)]
    judged = Judged(rows(2), generations, [sample_score(1.0, 0.2), sample_score(-0.5, 0.4)], [0.25, 0.75])
    report = describe_answers(judged)
    assert report["gold_mean"] == 0.5  # (0.25 + 0.75) / 2
    assert report["proxy_mean"] == 0.25  # (1 - 0.5) / 2
    assert report["uncertainty_mean"] == pytest.approx(0.3)  # (0.2 + 0.4) / 2
    assert report["eos_rate"] == 0.5
    assert report["length_mean"] == 22  # (4 + 40) / 2
    assert report["rep4"] == 0.0
    assert report["distinct2"] == 0.5  # "a b", "b a", "a b" and "a b": two of four
    first = rows(1)[0]
    assert report["samples"][0] == {
        "id": first["id"],
        "type": first["type"],
        "prompt": first["prompt"],
        "response": "a b a b",
        "finish_reason": "eos_token",
        "gold": 0.25,
        "proxy": 1.0,
        "uncertainty": 0.2,
    }
