"""What every dialect does around the scorer: choose the reward model, submit, wait, make the rewards."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import Request
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import ARTIFACT_REF_PATTERN
from rlhf.contracts.errors import ErrorBody, InvalidInput, Overloaded, ScoringFailed, TooLarge, Unavailable
from rlhf.contracts.reward import (
    PREFERENCE_ALONE,
    Aggregation,
    Objective,
    RewardTimings,
    SampleFailure,
    SampleScore,
)
from services.reward.instruments import SAMPLES, UNCERTAINTY
from services.reward.objectives import Asked, reward_samples
from services.reward.scorer import Scorer
from services.reward.settings import RewardSettings
from services.reward.texts import Sample, TextReader, shortened

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (401, 404, 409, 413, 422, 424, 503)
}
"""What other trainers' dialects answer besides rewards, for the OpenAPI schema."""


@dataclass(frozen=True)
class Scored:
    """Results in the order of the samples, and the tokens that were read for them."""

    model: str
    results: list[SampleScore | SampleFailure]
    tokens: int
    timings: RewardTimings


@dataclass(frozen=True)
class Rewards:
    """Every sample's score: none has failed."""

    model: str
    scores: list[SampleScore]
    tokens: int

    @property
    def values(self) -> list[float]:
        """The reward of each."""
        return [score.reward for score in self.scores]


def choose_model(default: str | None, name: str | None) -> str:
    """The reward model that a request means: `job@version` is that one, any other name the server's default.

    Raises:
        InvalidInput: it needs the default, and there is none.
    """
    if name is not None and re.fullmatch(ARTIFACT_REF_PATTERN, name):
        return name
    if default is None:
        shown = None if name is None else shortened(name)
        raise InvalidInput(
            f"the request names no reward model (model={shown}) and the server has no default; send `model`: "
            "`job@version`, load one by POST /models/job@version/load, or start the server with RLHF_REWARD_MODEL"
        )
    return default


async def score_samples(
    request: Request,
    name: str | None,
    samples: Sequence[Sample],
    aggregation: Aggregation,
    objectives: Sequence[Objective] = PREFERENCE_ALONE,
) -> Scored:
    """Scores samples by the reward model that the name means, and by whatever else the objectives name.

    A sample that cannot be scored has its failure in its place.
    """
    settings: RewardSettings = request.app.state.settings
    model = choose_model(request.app.state.default.ref, name)
    if len(samples) > settings.max_request_samples:
        raise TooLarge(f"{len(samples)} samples exceed the {settings.max_request_samples} of one request; send fewer")
    if not samples:
        return Scored(model, [], 0, RewardTimings(queue_s=0.0, inference_s=0.0))
    scorer: Scorer = request.app.state.runtime.worker()
    asked = Asked(model, aggregation, objectives)
    jobs = {ref: scorer.submit(ref, samples) for ref in asked.models}
    answers = await asyncio.gather(*(asyncio.wrap_future(job.outcomes) for job in jobs.values()))
    outcomes = dict(zip(jobs, answers, strict=True))
    # Of 4096 long responses, words and patterns take seconds, in which the server has others to answer.
    results = await asyncio.to_thread(reward_samples, asked, [each.response for each in samples], outcomes)
    _count(results)
    tokens = sum(outcome.tokens for outcome in outcomes[model] if not isinstance(outcome, SampleFailure))
    queued, started = jobs[model].queued_at, min(job.started_at for job in jobs.values())
    timings = RewardTimings(queue_s=started - queued, inference_s=time.monotonic() - started)
    return Scored(model, results, tokens, timings)


async def reward_all(request: Request, name: str | None, samples: Sequence[Sample]) -> Rewards:
    """Scores samples for a dialect that knows no failure of one sample.

    Raises:
        ScoringFailed: a sample cannot be scored; says which and why.
        Unavailable: also when the queue is full, since the clients of these dialects retry no 4xx.
    """
    try:
        scored = await score_samples(request, name, samples, Aggregation())
    except Overloaded as error:
        raise Unavailable(error.message, retry_after=error.retry_after) from error
    scores: list[SampleScore] = []
    for index, result in enumerate(scored.results):
        if isinstance(result, SampleFailure):
            raise ScoringFailed(f"sample {index} has no score, so that none is answered: {result.error}")
        scores.append(result)
    return Rewards(scored.model, scores, scored.tokens)


def text_reader(request: Request) -> TextReader:
    """Reads texts in the chat template of the backbone. Raises Unavailable while there is none."""
    scorer: Scorer = request.app.state.runtime.worker()
    return _reader(scorer.base.tokenizer)


@lru_cache(maxsize=4)
def _reader(tokenizer: PreTrainedTokenizerBase) -> TextReader:
    """Renders the template twice to learn it, once a tokenizer and not once a request."""
    return TextReader(tokenizer)


def _count(results: Sequence[SampleScore | SampleFailure]) -> None:
    for result in results:
        if isinstance(result, SampleFailure):
            SAMPLES.labels("failed").inc()
        else:
            SAMPLES.labels("scored").inc()
            UNCERTAINTY.observe(result.uncertainty)
