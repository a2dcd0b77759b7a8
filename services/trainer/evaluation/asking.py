"""What an evaluation asks of policy and reward, so that what cannot be answered is one sample and not all of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlhf.contracts.base import Prompt
from rlhf.contracts.errors import GenerationFailed, InternalError, InvalidInput, ScoringFailed, TooLarge
from rlhf.contracts.policy import (
    GenerateRequest,
    GenerateResponse,
    Generation,
    LogprobSample,
    LogprobsRequest,
    LogprobsResponse,
    ResponseLogprobs,
    ReturnOptions,
    SamplingParams,
)
from rlhf.contracts.reward import Aggregation, RewardRequest, RewardResponse, RewardSample, SampleScore

Item = TypeVar("Item")
Result = TypeVar("Result")
REFUSED = (InvalidInput, TooLarge, GenerationFailed, ScoringFailed)
"""What a single sample can be the reason of; anything else is the service's or the job's."""


@dataclass(frozen=True)
class Services:
    """The services as functions: over HTTP in a worker.

    Attributes:
        generate: samples responses.
        logprobs: log-probabilities of given responses.
        score: rewards.
    """

    generate: Callable[[GenerateRequest], GenerateResponse]
    logprobs: Callable[[LogprobsRequest], LogprobsResponse]
    score: Callable[[RewardRequest], RewardResponse]


@dataclass(frozen=True)
class Failure:
    """Why a sample has no answer."""

    reason: str


def seed_of(*parts: int | str) -> int:
    """A seed below 2⁶³ from its parts: other parts, another seed."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8]) & (2**63 - 1)


def ask_each(items: Sequence[Item], ask: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result | Failure]:
    """Answers in order; when a request is refused, its halves are asked for, down to the item that is the reason.

    Args:
        items: of one request.
        ask: sends a request; returns one result an item.

    Raises:
        InternalError: the service answered another number of results.
        ServiceError: any error that no item can be the reason of.
    """
    if not items:
        return []
    try:
        results = list(ask(items))
    except REFUSED as error:
        if len(items) == 1:
            return [Failure(str(error))]
        middle = len(items) // 2
        return ask_each(items[:middle], ask) + ask_each(items[middle:], ask)
    if len(results) != len(items):
        raise InternalError(f"a service answered {len(results)} results for {len(items)} samples; update it")
    return list(results)


def sample(
    services: Services, prompts: Sequence[Prompt], adapter: str | None, sampling: SamplingParams
) -> list[list[Generation] | Failure]:
    """Responses of each prompt. Args: sampling, with a seed."""

    def ask(part: Sequence[Prompt]) -> list[list[Generation]]:
        request = GenerateRequest(
            prompts=list(part), adapter=adapter, sampling=sampling, returns=ReturnOptions(token_ids=True)
        )
        results = services.generate(request).results
        return [[each for each in results if each.prompt_index == index] for index in range(len(part))]

    return ask_each(prompts, ask)


def likelihoods(
    services: Services, samples: Sequence[LogprobSample], adapter: str | None
) -> list[ResponseLogprobs | Failure]:
    """Log-probabilities of given responses. One that is not finite is a failure."""
    answers = ask_each(
        samples, lambda part: services.logprobs(LogprobsRequest(samples=list(part), adapter=adapter)).results
    )
    return [
        Failure("a log-probability is not finite")
        if isinstance(each, ResponseLogprobs) and not all(map(math.isfinite, each.logprobs))
        else each
        for each in answers
    ]


def rewards(
    services: Services, samples: Sequence[RewardSample], model: str, aggregation: Aggregation
) -> list[SampleScore | Failure]:
    """Rewards of responses. One that is not finite is a failure."""

    def ask(part: Sequence[RewardSample]) -> list[Any]:
        return services.score(RewardRequest(samples=list(part), model=model, aggregation=aggregation)).results

    told: list[SampleScore | Failure] = []
    for each in ask_each(samples, ask):
        if isinstance(each, Failure):
            told.append(each)
        elif not isinstance(each, SampleScore):
            told.append(Failure(each.error))
        elif not math.isfinite(each.reward):
            told.append(Failure(f"the reward is not finite ({each.reward})"))
        else:
            told.append(each)
    return told
