"""What a rollout asks, what it keeps and what it drops."""

import math

import numpy as np
import pytest

from rlhf.contracts.base import Message
from rlhf.contracts.errors import Conflict, GenerationFailed, InternalError, ScoringFailed, Unavailable
from rlhf.contracts.policy import GenerateRequest, GenerateResponse, GenerateTimings, Generation, SamplingParams
from rlhf.contracts.reward import (
    Aggregation,
    LengthObjective,
    RewardRequest,
    RewardResponse,
    RewardTimings,
    SampleFailure,
    SampleScore,
)
from rlhf.contracts.rollout import RolloutTask
from services.trainer.rollouts.rollout import last_user_turn, run_rollout

TASK = RolloutTask(
    job="ppo-1",
    step=3,
    shard=1,
    policy_version=3,
    adapter="ppo-1@3",
    prompts=["first", [Message(role="system", content="Be brief."), Message(role="user", content="second")]],
    sampling=SamplingParams(n=2, seed=7, max_new_tokens=4, temperature=0.7),
    reward_model="rm@1",
    aggregation=Aggregation(method="lcb"),
    objectives=[LengthObjective(kind="length", most=4)],
)


class Services:
    """Answers and remembers: sample s of prompt p says `p.s` in s + 1 tokens and scores 10·p + s."""

    def __init__(self, version: int = 3) -> None:
        self.version = version
        self.asked: list[GenerateRequest | RewardRequest] = []

    def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.asked.append(request)
        results = [self.generation(p, s) for p in range(2) for s in range(2)]
        timings = GenerateTimings(queue_s=0, inference_s=0)
        return GenerateResponse(
            model="m", adapter=request.adapter, policy_version=self.version, results=results, timings=timings
        )

    def generation(self, prompt: int, sample: int) -> Generation:
        n = sample + 1
        return Generation(
            prompt_index=prompt,
            sample_index=sample,
            text=f"{prompt}.{sample}",
            finish_reason="length" if sample else "eos_token",
            generated_tokens=n,
            token_ids=[100 * prompt + sample] * n,
            behavior_logprobs=[-0.5] * n,
            prompt_token_ids=[prompt] * 3,
            seed=1,
        )

    def score(self, request: RewardRequest) -> RewardResponse:
        self.asked.append(request)
        results = [self.result(*map(int, sample.response.split("."))) for sample in request.samples]
        return RewardResponse(model="rm@1", results=results, timings=RewardTimings(queue_s=0, inference_s=0))

    def result(self, prompt: int, sample: int) -> SampleScore | SampleFailure:
        value = 10.0 * prompt + sample
        members = [value - 1, value + 1]
        objectives = {"length": -value / 100}
        return SampleScore(
            reward=value - 0.5, objectives=objectives, score=value, uncertainty=1, members=members, truncated=False
        )


def test_a_batch_holds_every_sample_in_order() -> None:
    services = Services()
    batch = run_rollout(TASK, services.generate, services.score)
    assert (batch.batch_id, batch.job, batch.step, batch.shard, batch.policy_version) == ("ppo-1:3:1", "ppo-1", 3, 1, 3)
    assert batch.group.tolist() == [0, 0, 1, 1]
    assert [ids.tolist() for ids in batch.prompt_ids] == [[0] * 3, [0] * 3, [1] * 3, [1] * 3]
    assert [ids.tolist() for ids in batch.response_ids] == [[0], [1, 1], [100], [101, 101]]
    assert [values.tolist() for values in batch.behavior_logprobs] == [[-0.5], [-0.5, -0.5]] * 2
    assert batch.ended.tolist() == [True, False, True, False]
    assert batch.scores.tolist() == [0, 1, 10, 11]
    assert batch.rewards.tolist() == [-0.5, 0.5, 9.5, 10.5]
    assert batch.members.tolist() == [[-1, 1], [0, 2], [9, 11], [10, 12]]
    assert {name: values.tolist() for name, values in batch.objectives.items()} == {
        "length": pytest.approx([0, -0.01, -0.1, -0.11])
    }
    assert batch.objectives["length"].dtype == np.float32
    assert batch.responses == ["0.0", "0.1", "1.0", "1.1"]
    assert batch.prompts == ["first", "first", "second", "second"]
    assert (batch.failures, sorted(batch.timings)) == ([], ["generate_s", "score_s"])
    assert (batch.group.dtype, batch.rewards.dtype, batch.ended.dtype) == (np.int32, np.float32, np.bool_)


def test_it_asks_for_the_task_and_for_what_the_learner_needs() -> None:
    services = Services()
    run_rollout(TASK, services.generate, services.score)
    generate, score = services.asked
    assert isinstance(generate, GenerateRequest)
    assert isinstance(score, RewardRequest)
    assert (generate.prompts, generate.adapter, generate.sampling) == (TASK.prompts, "ppo-1@3", TASK.sampling)
    asked = {name for name, value in generate.returns.model_dump().items() if value}
    assert asked == {"token_ids", "logprobs", "prompt_token_ids"}
    assert (score.model, score.aggregation, score.objectives) == ("rm@1", TASK.aggregation, TASK.objectives)
    assert [(sample.prompt, sample.response) for sample in score.samples] == [
        (TASK.prompts[0], "0.0"),
        (TASK.prompts[0], "0.1"),
        (TASK.prompts[1], "1.0"),
        (TASK.prompts[1], "1.1"),
    ]


def test_a_failed_or_infinite_score_drops_the_sample_and_says_why() -> None:
    class Odd(Services):
        def result(self, prompt: int, sample: int) -> SampleScore | SampleFailure:
            if (prompt, sample) == (0, 1):
                return SampleFailure(error="the response is too long", error_type="scoring")
            score = super().result(prompt, sample)
            return score.model_copy(update={"reward": math.nan}) if (prompt, sample) == (1, 0) else score

    services = Odd()
    batch = run_rollout(TASK, services.generate, services.score)
    assert batch.responses == ["0.0", "1.1"]
    assert batch.objectives["length"].tolist() == pytest.approx([0, -0.11])
    assert batch.rewards.tolist() == [-0.5, 10.5]
    assert batch.group.tolist() == [0, 1]
    assert batch.failures == [
        "prompt 0 sample 1: not scored: the response is too long",
        "prompt 1 sample 0: not scored: the reward is not finite (nan)",
    ]


def test_a_service_without_one_finite_score_is_ill() -> None:
    class Ill(Services):
        def result(self, prompt: int, sample: int) -> SampleScore | SampleFailure:
            return super().result(prompt, sample).model_copy(update={"members": [math.inf, 0.0]})

    services = Ill()
    with pytest.raises(InternalError, match="all 4 samples of rollout ppo-1:3:1 scores that are not finite"):
        run_rollout(TASK, services.generate, services.score)


def test_a_response_without_tokens_or_with_infinite_logprobs_is_dropped_unscored() -> None:
    class Odd(Services):
        def generation(self, prompt: int, sample: int) -> Generation:
            generation = super().generation(prompt, sample)
            if (prompt, sample) == (0, 0):
                return generation.model_copy(update={"token_ids": [], "behavior_logprobs": []})
            if (prompt, sample) == (1, 1):
                return generation.model_copy(update={"behavior_logprobs": [-1.0, -math.inf]})
            return generation

    services = Odd()
    batch = run_rollout(TASK, services.generate, services.score)
    assert batch.responses == ["0.1", "1.0"]
    assert batch.failures == [
        "prompt 0 sample 0: the response has no tokens",
        "prompt 1 sample 1: a log-probability is not finite",
    ]


def test_when_nothing_can_be_scored_the_batch_is_empty_with_all_reasons() -> None:
    def broken(request: RewardRequest) -> RewardResponse:
        raise ScoringFailed("no member answered")

    batch = run_rollout(TASK, Services().generate, broken)
    assert (len(batch), batch.members.shape, batch.objectives) == (0, (0, 0), {})
    assert batch.failures[0] == "prompt 0 sample 0: not scored: no member answered"
    assert len(batch.failures) == 4


def test_when_nothing_can_be_generated_reward_is_not_asked() -> None:
    def broken(request: GenerateRequest) -> GenerateResponse:
        raise GenerationFailed("the engine stopped")

    services = Services()
    batch = run_rollout(TASK, broken, services.score)
    assert len(batch) == 0
    assert batch.failures[3] == "prompt 1 sample 1: not generated: the engine stopped"
    assert services.asked == []


def test_outages_are_left_to_the_caller() -> None:
    def away(request: RewardRequest) -> RewardResponse:
        raise Unavailable("no connection")

    with pytest.raises(Unavailable):
        run_rollout(TASK, Services().generate, away)


def test_another_policy_version_is_refused() -> None:
    services = Services(version=2)
    with pytest.raises(Conflict, match=r"version 2.*asked for 3"):
        run_rollout(TASK, services.generate, services.score)


@pytest.mark.parametrize("missing", ["token_ids", "behavior_logprobs", "prompt_token_ids"])
def test_an_answer_without_what_was_asked_for_is_refused(missing: str) -> None:
    class Odd(Services):
        def generation(self, prompt: int, sample: int) -> Generation:
            return super().generation(prompt, sample).model_copy(update={missing: None})

    services = Odd()
    with pytest.raises(InternalError, match="token ids"):
        run_rollout(TASK, services.generate, services.score)


def test_fewer_scores_than_samples_are_refused() -> None:
    services = Services()

    def short(request: RewardRequest) -> RewardResponse:
        answer = services.score(request)
        return answer.model_copy(update={"results": answer.results[1:]})

    with pytest.raises(InternalError, match="3 results for 4 samples"):
        run_rollout(TASK, services.generate, short)


def test_the_last_user_turn_is_what_people_read() -> None:
    turns = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    assert last_user_turn([Message(role=role, content=content) for role, content in turns]) == "three"
    assert last_user_turn("plain") == "plain"
    assert last_user_turn([Message(role="system", content="x")]) == ""
