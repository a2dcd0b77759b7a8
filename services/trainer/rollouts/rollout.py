"""What a rollout is: prompts → responses → scores → one experience batch. Orchestration only: no queue, no retries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rlhf.contracts.base import Prompt, prompt_messages
from rlhf.contracts.errors import Conflict, GenerationFailed, InternalError, ScoringFailed
from rlhf.contracts.policy import GenerateRequest, GenerateResponse, Generation, ReturnOptions
from rlhf.contracts.reward import RewardRequest, RewardResponse, RewardSample, SampleFailure, SampleScore
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.batch import ExperienceBatch

Generate = Callable[[GenerateRequest], GenerateResponse]
Score = Callable[[RewardRequest], RewardResponse]


@dataclass
class _Kept:
    """The samples that have both a response and a score, and why the others have not."""

    generations: list[Generation] = field(default_factory=list)
    scores: list[SampleScore] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def drop(self, prompt: int, sample: int, reason: str) -> None:
        self.failures.append(f"prompt {prompt} sample {sample}: {reason}")


def run_rollout(task: RolloutTask, generate: Generate, score: Score) -> ExperienceBatch:
    """Samples and scores one shard.

    A sample that could not be generated or scored, or whose reward is not finite, is left out with its reason; it is
    never given a 0. All of them may be left out: the learner decides what that means for the job. But a reward service
    that has a score for every sample and not one of them finite is ill, and says nothing about the samples.

    Args:
        task: the shard.
        generate: calls the policy service.
        score: calls the reward service.

    Raises:
        ServiceError: policy or reward refused the request as a whole, cannot be reached or is ill.
    """
    kept = _Kept()
    started = time.monotonic()
    generations = _usable(task, _generate(task, generate, kept), kept)
    generated = time.monotonic()
    for generation, result in zip(generations, _score(task, score, generations), strict=True):
        _judge(generation, result, kept)
    timings = {"generate_s": generated - started, "score_s": time.monotonic() - generated}
    return _batch(task, kept, timings)


def last_user_turn(prompt: Prompt) -> str:
    """What the user said last, for people to read."""
    users = [message.content for message in prompt_messages(prompt) if message.role == "user"]
    return users[-1] if users else ""


def _generate(task: RolloutTask, generate: Generate, kept: _Kept) -> list[Generation]:
    request = GenerateRequest(
        prompts=task.prompts,
        adapter=task.adapter,
        sampling=task.sampling,
        returns=ReturnOptions(token_ids=True, logprobs=True, prompt_token_ids=True),
    )
    try:
        answer = generate(request)
    except GenerationFailed as error:
        for prompt in range(len(task.prompts)):
            for sample in range(task.sampling.n):
                kept.drop(prompt, sample, f"not generated: {error}")
        return []
    if answer.policy_version != task.policy_version:
        raise Conflict(
            f"policy answered with version {answer.policy_version}, rollout {task.batch_id} asked for "
            f"{task.policy_version}; experience of another version would be trained on as if it were this one's"
        )
    return answer.results


def _usable(task: RolloutTask, generations: list[Generation], kept: _Kept) -> list[Generation]:
    """Those that can be trained on; a malformed answer is a bug of the policy service and ends the rollout."""
    usable = []
    for generation in generations:
        ids, logprobs = generation.token_ids, generation.behavior_logprobs
        if ids is None or logprobs is None or generation.prompt_token_ids is None or len(ids) != len(logprobs):
            raise InternalError(
                f"policy answered rollout {task.batch_id} without token ids, log-probabilities and prompt token ids of "
                "equal length, although they were asked for; update the policy service"
            )
        where = generation.prompt_index, generation.sample_index
        if not ids:
            kept.drop(*where, "the response has no tokens")
        elif not all(math.isfinite(value) for value in logprobs):
            kept.drop(*where, "a log-probability is not finite")
        else:
            usable.append(generation)
    return usable


def _score(task: RolloutTask, score: Score, generations: list[Generation]) -> list[SampleScore | SampleFailure]:
    if not generations:
        return []
    samples = [RewardSample(prompt=task.prompts[each.prompt_index], response=each.text) for each in generations]
    request = RewardRequest(
        samples=samples, model=task.reward_model, aggregation=task.aggregation, objectives=task.objectives
    )
    try:
        answer = score(request)
    except ScoringFailed as error:
        return [SampleFailure(error=str(error), error_type=error.error_type) for _ in samples]
    if len(answer.results) != len(samples):
        raise InternalError(f"reward answered {len(answer.results)} results for {len(samples)} samples; update it")
    scores = [result for result in answer.results if isinstance(result, SampleScore)]
    if len(scores) == len(samples) and not any(map(_finite, scores)):
        raise InternalError(
            f"reward gave all {len(samples)} samples of rollout {task.batch_id} scores that are not finite, such as "
            f"{_numbers(scores[0])}; look into its log"
        )
    return answer.results


def _judge(generation: Generation, result: SampleScore | SampleFailure, kept: _Kept) -> None:
    where = generation.prompt_index, generation.sample_index
    if isinstance(result, SampleFailure):
        kept.drop(*where, f"not scored: {result.error}")
    elif not _finite(result):
        kept.drop(*where, f"not scored: the reward is not finite ({result.reward})")
    else:
        kept.generations.append(generation)
        kept.scores.append(result)


def _finite(score: SampleScore) -> bool:
    return all(map(math.isfinite, _numbers(score)))


def _numbers(score: SampleScore) -> list[float]:
    return [score.reward, score.score, score.uncertainty, *score.members, *score.objectives.values()]


def _batch(task: RolloutTask, kept: _Kept, timings: dict[str, float]) -> ExperienceBatch:
    members = [score.members for score in kept.scores]
    names = list(kept.scores[0].objectives) if kept.scores else []
    return ExperienceBatch(
        batch_id=task.batch_id,
        job=task.job,
        step=task.step,
        shard=task.shard,
        policy_version=task.policy_version,
        group=np.array([each.prompt_index for each in kept.generations], np.int32),
        prompt_ids=[np.array(each.prompt_token_ids, np.int32) for each in kept.generations],
        response_ids=[np.array(each.token_ids, np.int32) for each in kept.generations],
        behavior_logprobs=[np.array(each.behavior_logprobs, np.float32) for each in kept.generations],
        ended=np.array([each.finish_reason != "length" for each in kept.generations], np.bool_),
        rewards=np.array([score.reward for score in kept.scores], np.float32),
        scores=np.array([score.score for score in kept.scores], np.float32),
        uncertainty=np.array([score.uncertainty for score in kept.scores], np.float32),
        members=np.array(members, np.float32).reshape(len(members), -1 if members else 0),
        objectives={name: np.array([score.objectives[name] for score in kept.scores], np.float32) for name in names},
        responses=[each.text for each in kept.generations],
        prompts=[last_user_turn(task.prompts[each.prompt_index]) for each in kept.generations],
        failures=kept.failures,
        timings=timings,
    )
