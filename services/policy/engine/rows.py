"""Rows: one response in the making each, with all that it needs to be continued beside any others."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf.contracts.errors import InternalError, ServiceError
from rlhf.contracts.policy import FinishReason, SamplingParams
from services.policy.engine.stops import StopMatcher

UNIFORMS_AT_A_TIME = 64


def sample_seed(seed: int, prompt: int, sample: int) -> int:
    """The seed of one sample of a request: it depends on its place in the request and on nothing else."""
    digest = hashlib.sha256(f"{seed}:{prompt}:{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)


class UniformStream:
    """Numbers in [0, 1) from a generator of its own, one a token."""

    def __init__(self, seed: int) -> None:
        """Args: seed, 0 to 2**63 - 1."""
        self._generator = torch.Generator().manual_seed(seed)
        self._numbers: list[float] = []

    def next(self) -> float:
        """The next number."""
        if not self._numbers:
            self._numbers = torch.rand(UNIFORMS_AT_A_TIME, generator=self._generator).tolist()[::-1]
        return self._numbers.pop()


@dataclass(frozen=True)
class Extras:
    """What a request wants to know beyond its tokens.

    Attributes:
        top_logprobs: so many of the most likely tokens at each step, with their log-probabilities.
        prompt_logprobs: the log-probability of each prompt token after the first, under the plain model.
        model_logprobs: the log-probability of each token under the plain model, penalties and filters left out.
    """

    model_logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False


@dataclass(eq=False)
class Row:
    """One response in the making. The engine appends; other threads may read up to `len(token_ids)` at any time.

    Attributes:
        prompt_index: which of its request's prompts it answers.
        sample_index: which of the prompt's samples it is.
        prompt_ids: at least one token.
        sampling: how to sample.
        uniforms: where its random numbers come from.
        abandoned: set when nobody waits for its request any more; shared by the request's rows.
        stop: watches for stop texts; None when there are none.
        extras: what its request wants to know besides.
        token_ids: the response so far, EOS included.
        behavior_logprobs: of each token under the distribution sampled from.
        model_logprobs: of each token under the plain model at this temperature; empty unless extras ask for them.
        top_logprobs: of each token, the most likely ones under the distribution sampled from, best first; empty
            unless extras ask for them.
        prompt_logprobs: one for each prompt token but the first, at temperature 1; None unless extras ask for them.
        finish_reason: None while it is being made.
        failure: why it cannot be finished.
    """

    prompt_index: int
    sample_index: int
    prompt_ids: list[int]
    sampling: SamplingParams
    uniforms: UniformStream
    abandoned: threading.Event
    stop: StopMatcher | None = None
    extras: Extras = Extras()
    token_ids: list[int] = field(default_factory=list)
    behavior_logprobs: list[float] = field(default_factory=list)
    model_logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    prompt_logprobs: list[float] | None = None
    finish_reason: FinishReason | None = None
    failure: ServiceError | None = None

    @property
    def ended_by(self) -> FinishReason:
        """Why the response ended. Raises InternalError when it has not: only finished rows are answered."""
        if self.finish_reason is None:
            raise InternalError(
                f"prompt {self.prompt_index}, sample {self.sample_index} is not finished; this is a bug"
            )
        return self.finish_reason

    def add(self, token: int, behavior: float, model: float | None, eos_ids: frozenset[int]) -> None:
        """Takes the next token and decides whether the response ends with it."""
        self.behavior_logprobs.append(behavior)
        if model is not None and self.extras.model_logprobs:
            self.model_logprobs.append(model)
        # Last: who sees the token in another thread finds the rest of it there.
        self.token_ids.append(token)
        if token in eos_ids:
            self.finish_reason = "eos_token"
        elif self.stop is not None and self.stop.add(token):
            self.finish_reason = "stop_sequence"
        elif len(self.token_ids) >= self.sampling.max_new_tokens:
            self.finish_reason = "length"


@dataclass(frozen=True)
class RowSettings:
    """The sampling settings of B rows as tensors, in the rows' order.

    Attributes:
        temperature: [B] float32; 1 for greedy rows, whose log-probabilities are those of the model as it is.
        greedy: [B] bool.
        top_k: [B] int64; 0 is off.
        top_p: [B] float32; 1 is off.
        min_p: [B] float32; 0 is off.
        typical_p: [B] float32; 1 is off.
        frequency_penalty: [B] float32; 0 is off.
        presence_penalty: [B] float32; 0 is off.
        repetition_penalty: [B] float32; 1 is off.
        ngram: [B] int64; 0 is off.
        tempered: whether any temperature is not 1; penalised, whether any penalty or n-gram ban is on; the others,
            whether any row uses the setting. Known here once, since asking a tensor waits for the device.
    """

    temperature: Tensor
    greedy: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    typical_p: Tensor
    frequency_penalty: Tensor
    presence_penalty: Tensor
    repetition_penalty: Tensor
    ngram: Tensor
    tempered: bool
    penalised: bool
    top_k_used: bool
    top_p_used: bool
    min_p_used: bool
    typical_used: bool
    counts_used: bool
    repetition_used: bool
    ngram_used: bool

    @classmethod
    def of(cls, rows: list[Row], device: torch.device) -> RowSettings:
        """The settings of these rows."""
        all_settings = [row.sampling for row in rows]
        greedy = torch.tensor([s.temperature == 0 for s in all_settings], device=device)

        repetition = any(s.repetition_penalty != 1 for s in all_settings)
        counts = any(s.frequency_penalty != 0 or s.presence_penalty != 0 for s in all_settings)
        ngram = any(s.no_repeat_ngram_size > 0 for s in all_settings)

        def column(name: str, dtype: torch.dtype) -> Tensor:
            return torch.tensor([getattr(s, name) for s in all_settings], dtype=dtype, device=device)

        return cls(
            temperature=column("temperature", torch.float32).masked_fill(greedy, 1.0),
            greedy=greedy,
            top_k=column("top_k", torch.int64),
            top_p=column("top_p", torch.float32),
            min_p=column("min_p", torch.float32),
            typical_p=column("typical_p", torch.float32),
            frequency_penalty=column("frequency_penalty", torch.float32),
            presence_penalty=column("presence_penalty", torch.float32),
            repetition_penalty=column("repetition_penalty", torch.float32),
            ngram=column("no_repeat_ngram_size", torch.int64),
            tempered=any(s.temperature not in (0.0, 1.0) for s in all_settings),
            penalised=repetition or counts or ngram,
            top_k_used=any(s.top_k > 0 for s in all_settings),
            top_p_used=any(s.top_p < 1 for s in all_settings),
            min_p_used=any(s.min_p > 0 for s in all_settings),
            typical_used=any(s.typical_p < 1 for s in all_settings),
            counts_used=counts,
            repetition_used=repetition,
            ngram_used=ngram,
        )
