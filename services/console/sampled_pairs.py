"""Pairs made here: two models answer the same prompts, and a reward model scores what there is to judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rlhf.clients.policy import PolicyClient
from rlhf.clients.reward import RewardClient
from rlhf.contracts.policy import GenerateRequest, SamplingParams
from rlhf.contracts.reward import RewardRequest, RewardSample, SampleFailure
from services.console.pairs import GivenPair, ScoredPair
from services.console.references import BASE

MOST_PROMPTS = 200
"""Of one study that is made here: they are answered while its form waits."""
AT_A_TIME = 32
"""Prompts, or pairs, of one request."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Answered:
    """Attributes: pairs to judge; left_out, prompts that both models answered with the same text."""

    pairs: list[GivenPair]
    left_out: int


def answer(policy: PolicyClient, prompts: Sequence[str], models: tuple[str, str], sampling: SamplingParams) -> Answered:
    """Both models' answers to every prompt.

    Args:
        policy: the service that has them.
        prompts: at most MOST_PROMPTS.
        models: `job@version` each, or BASE; the same twice draws two samples of it.
        sampling: of both, with a seed.

    Raises:
        ServiceError: the service's own.
    """
    first, second = models
    # Two samples of one model have to be drawn apart.
    seed = (sampling.seed or 0) + (1 if first == second else 0)
    left = _texts(policy, prompts, first, sampling)
    right = _texts(policy, prompts, second, sampling.model_copy(update={"seed": seed}))
    pairs = [
        GivenPair(prompt=prompt, responses=(a, b), policies=models)
        for prompt, a, b in zip(prompts, left, right, strict=True)
        if a != b
    ]
    return Answered(pairs, len(prompts) - len(pairs))


def score(reward: RewardClient, model: str, pairs: Sequence[GivenPair]) -> list[ScoredPair]:
    """The pairs with both responses' scores; a pair of which one could not be scored goes without.

    Raises:
        ServiceError: the service's own.
    """
    scored = []
    for chunk in _chunks(pairs):
        samples = [RewardSample(prompt=pair.prompt, response=text) for pair in chunk for text in pair.responses]
        results = reward.score(RewardRequest(samples=samples, model=model)).results
        for pair, first, second in zip(chunk, results[::2], results[1::2], strict=True):
            if isinstance(first, SampleFailure) or isinstance(second, SampleFailure):
                scored.append(ScoredPair(pair))
            else:
                scored.append(ScoredPair(pair, (first, second)))
    return scored


def _texts(policy: PolicyClient, prompts: Sequence[str], model: str, sampling: SamplingParams) -> Iterator[str]:
    adapter = None if model == BASE else model
    for chunk in _chunks(prompts):
        request = GenerateRequest(prompts=list(chunk), adapter=adapter, sampling=sampling)
        for result in policy.generate(request).results:
            yield result.text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), AT_A_TIME):
        yield items[start : start + AT_A_TIME]
