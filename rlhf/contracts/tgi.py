"""Bodies of the policy service's TGI dialect, named as in TGI's own schema."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from rlhf.contracts.base import AdapterRef, Contract
from rlhf.contracts.policy import FinishReason

MAX_BEST_OF = 16
MAX_STOP_SEQUENCES = 4
MAX_TOP_TOKENS = 20


class TgiParameters(Contract):
    """`parameters` of TGI's GenerateRequest; ranges are TGI's own. `no_repeat_ngram_size` is our extension."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    adapter_id: AdapterRef | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_BEST_OF)] | None = None
    decoder_input_details: bool = False
    details: bool = False
    do_sample: bool = False
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    grammar: dict[str, Any] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    return_full_text: bool | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    stop: list[str] = Field(default_factory=list, max_length=MAX_STOP_SEQUENCES)
    temperature: Annotated[float, Field(gt=0)] | None = None
    top_k: Annotated[int, Field(gt=0)] | None = None
    top_n_tokens: Annotated[int, Field(ge=0, le=MAX_TOP_TOKENS)] | None = None
    top_p: Annotated[float, Field(gt=0, lt=1)] | None = None
    truncate: Annotated[int, Field(ge=0)] | None = None
    typical_p: Annotated[float, Field(gt=0, lt=1)] | None = None
    watermark: bool = False


class TgiRequest(Contract):
    """`POST /`, `/generate` and `/generate_stream`."""

    inputs: str
    parameters: TgiParameters | None = None
    stream: bool = Field(False, description="an SSE stream in place of one answer; not with /generate")


class TgiToken(Contract):
    """One token; its log-probability is of the distribution sampled from."""

    id: int
    text: str
    logprob: float
    special: bool


class TgiPrefillToken(Contract):
    """One prompt token, with its log-probability under the plain model; the first has none."""

    id: int
    text: str
    logprob: float | None = None


class TgiSequence(Contract):
    """What is told about one generated sequence."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[TgiPrefillToken]
    tokens: list[TgiToken]
    top_tokens: list[list[TgiToken]] = Field(default_factory=list, description="at each step, the likeliest tokens")


class TgiBestOfSequence(TgiSequence):
    """One of the sequences that were not chosen."""

    generated_text: str


class TgiDetails(TgiSequence):
    """TGI's `details`."""

    best_of_sequences: list[TgiBestOfSequence] | None = None


class TgiResponse(Contract):
    """TGI's GenerateResponse."""

    generated_text: str
    details: TgiDetails | None = None


class TgiStreamDetails(Contract):
    """`details` of a stream's last event."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class TgiStreamResponse(Contract):
    """One event of a stream: one token. The last one has the whole text, and details when they were asked for."""

    index: int = Field(description="1 for the first token")
    token: TgiToken
    top_tokens: list[TgiToken] = Field(default_factory=list)
    generated_text: str | None = None
    details: TgiStreamDetails | None = None


class SimpleToken(Contract):
    """A token of a text: characters `start` to `stop`."""

    id: int
    text: str
    start: int
    stop: int


class ChatTokenizeResponse(Contract):
    """A conversation as the chat template writes it, and its tokens."""

    templated_text: str
    tokenize_response: list[SimpleToken]
