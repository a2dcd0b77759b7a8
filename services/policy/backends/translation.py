"""What remote backends share about requests: which settings are refused by name, and how an answer fills a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhf.contracts.errors import GenerationFailed, InvalidInput
from rlhf.contracts.policy import FinishReason, SamplingParams
from services.policy.engine.rows import Row

FILTERS = ("top_p", "top_k", "min_p", "typical_p")
PENALTIES = (
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
    *("no_repeat_ngram_size", "min_new_tokens"),
)


@dataclass(frozen=True)
class Answered:
    """What a server answered for one row, in our words.

    Attributes:
        token_ids: the response, EOS included.
        logprobs: of each token, under the distribution sampled from.
        finish_reason: the server's.
        top_logprobs: of each token, the likeliest ones, best first; empty unless asked for.
        prompt_logprobs: of each prompt token but the first, under the plain model; None unless asked for.
    """

    token_ids: list[int]
    logprobs: list[float | None]
    finish_reason: FinishReason
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    prompt_logprobs: list[float] | None = None


def is_set(sampling: SamplingParams, name: str) -> bool:
    """Whether a setting differs from its default, which for filters and penalties is off."""
    return bool(getattr(sampling, name) != SamplingParams.model_fields[name].default)


def is_plain(sampling: SamplingParams) -> bool:
    """Whether tokens are drawn from the plain model at this temperature, so that both log-probabilities are one."""
    return not any(is_set(sampling, name) for name in (*FILTERS, *PENALTIES))


def refuse(backend: str, sampling: SamplingParams, reasons: Mapping[str, str]) -> None:
    """Refuses settings that a server cannot do as we promise.

    Args:
        backend: its name.
        sampling: what was asked.
        reasons: why not, by the name of a setting.

    Raises:
        InvalidInput: names the backend and the setting.
    """
    for name, reason in reasons.items():
        if is_set(sampling, name):
            raise InvalidInput(
                f"{name}={getattr(sampling, name)} cannot be done by the backend {backend}: {reason}; leave it out"
            )
    filters = [name for name in FILTERS if is_set(sampling, name)]
    if sampling.temperature == 0 and filters:
        raise InvalidInput(
            f"{filters[0]}={getattr(sampling, filters[0])} with temperature=0 cannot be done by the backend {backend}: "
            "it has no filters where it decodes greedily; leave one of them out"
        )


def fill(row: Row, answered: Answered, eos_ids: frozenset[int]) -> None:
    """Gives a row its tokens. Ends it where our own rules end it, which may be before the server did.

    Raises:
        GenerationFailed: the answer is not whole; says what is missing.
    """
    tokens, logprobs, top = answered.token_ids, answered.logprobs, answered.top_logprobs
    wants_top = row.extras.top_logprobs > 0
    if not tokens or len(logprobs) != len(tokens) or (wants_top and len(top) != len(tokens)):
        raise GenerationFailed(
            f"the server answered {len(tokens)} tokens with {len(logprobs)} log-probabilities and {len(top)} lists of "
            "the likeliest tokens; one of each for every token is needed"
        )
    if row.extras.prompt_logprobs:
        if answered.prompt_logprobs is None or len(answered.prompt_logprobs) != len(row.prompt_ids) - 1:
            raise GenerationFailed("the server did not answer a log-probability for every token of the prompt")
        row.prompt_logprobs = answered.prompt_logprobs
    plain = is_plain(row.sampling)
    for index, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
        if logprob is None or not math.isfinite(logprob):
            raise GenerationFailed(f"the server answered the log-probability {logprob} for token {index}")
        if wants_top:
            row.top_logprobs.append(top[index])
        row.add(token, logprob, logprob if plain else None, eos_ids)
        if row.finish_reason is not None:
            return
    row.finish_reason = answered.finish_reason
