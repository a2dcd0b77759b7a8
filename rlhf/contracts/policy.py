"""Bodies of the policy service's native dialect."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rlhf.contracts.base import AdapterRef, ArtifactRef, Contract, Prompt

FinishReason = Literal["eos_token", "stop_sequence", "length"]

READERS_NGRAM = 3
"""`no_repeat_ngram_size` for responses that people read: of the settings measured, the one that ends loops at the least
cost in likelihood (docs/decisions/0027). Not the default of a request: training and measuring want the model's own."""


class SamplingParams(Contract):
    """How responses are sampled. The defaults sample the plain policy; a server may cap the limits."""

    max_new_tokens: int = Field(64, ge=1, le=32768, description="most tokens of a response, EOS included")
    min_new_tokens: int = Field(0, ge=0, le=32768, description="EOS is not sampled before this many tokens")
    temperature: float = Field(1.0, ge=0.0, le=100.0, description="0 means greedy; logits are divided by it")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="nucleus: the smallest set with this probability")
    top_k: int = Field(0, ge=0, lt=2**31, description="keep the k most likely tokens; 0 means all")
    min_p: float = Field(0.0, ge=0.0, le=1.0, description="keep tokens this likely relative to the likeliest; 0: all")
    typical_p: float = Field(
        1.0, ge=1e-6, le=1.0, description="locally typical: mass of the tokens nearest the entropy"
    )
    repetition_penalty: float = Field(
        1.0, gt=0.0, le=10.0, description="CTRL penalty over prompt and response tokens; 1 means none"
    )
    frequency_penalty: float = Field(
        0.0, ge=-2.0, le=2.0, description="subtracted from a token's logit for each time it is in prompt or response"
    )
    presence_penalty: float = Field(
        0.0, ge=-2.0, le=2.0, description="subtracted once from the logit of a token that is in prompt or response"
    )
    no_repeat_ngram_size: int = Field(
        0, ge=0, le=64, description="no n-gram of this size occurs twice in prompt and response; 0 means off"
    )
    stop: list[str] = Field(default_factory=list, max_length=16, description="texts that end a response")
    seed: int | None = Field(None, ge=0, lt=2**63, description="the same seed gives the same text; null draws one")
    n: int = Field(1, ge=1, le=128, description="samples per prompt; the prompt is prefilled once")


class ReturnOptions(Contract):
    """Which extras an answer carries."""

    token_ids: bool = False
    logprobs: bool = False
    prompt_token_ids: bool = False
    top_logprobs: int = Field(0, ge=0, le=20, description="so many of the likeliest tokens at each step")


class GenerateRequest(Contract):
    """`POST /generate`, native dialect."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    prompts: list[Prompt] = Field(min_length=1, max_length=1024)
    adapter: AdapterRef | None = Field(
        None, description="`job@version`, or `job@latest` for the newest accepted one; null is the base model"
    )
    sampling: SamplingParams = Field(default_factory=SamplingParams)
    returns: ReturnOptions = Field(default_factory=ReturnOptions, alias="return")


class TopToken(Contract):
    """A token that could have been sampled, with its log-probability under the distribution sampled from."""

    id: int
    logprob: float


class Generation(Contract):
    """One sampled response."""

    prompt_index: int = Field(description="index into the request's prompts")
    sample_index: int = Field(description="0..n-1 within the prompt")
    text: str = Field(description="the response without EOS and without the stop text")
    finish_reason: FinishReason
    generated_tokens: int = Field(description="response tokens, EOS included")
    token_ids: list[int] | None = Field(None, description="response token ids, EOS included when sampled")
    behavior_logprobs: list[float] | None = Field(
        None, description="natural log-probability of each token under the distribution sampled from"
    )
    model_logprobs: list[float] | None = Field(
        None,
        description="natural log-probability of each token under the plain model at this temperature; null from the "
        "backends tgi and vllm when filters or penalties are on, since those servers tell one distribution only",
    )
    top_logprobs: list[list[TopToken]] | None = Field(None, description="at each step, best first")
    prompt_token_ids: list[int] | None = None
    seed: int = Field(description="the seed this sample was drawn with")


class GenerateTimings(Contract):
    """Seconds."""

    queue_s: float
    inference_s: float


class GenerateResponse(Contract):
    """Generations in order of prompt, then sample."""

    model: str
    adapter: ArtifactRef | None = Field(description="`job@version`, also where `job@latest` was asked for")
    policy_version: int = Field(description="the adapter's version; 0 for the base model")
    results: list[Generation]
    timings: GenerateTimings


class LogprobSample(Contract):
    """A prompt and a response to it that exists already."""

    prompt: Prompt
    response: str | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        description="text, or the token ids that were sampled; a text is encoded by itself, apart from the prompt"
    )


class LogprobsRequest(Contract):
    """`POST /logprobs`."""

    samples: list[LogprobSample] = Field(min_length=1, max_length=1024)
    adapter: AdapterRef | None = Field(
        None, description="`job@version`, or `job@latest` for the newest accepted one; null is the base model"
    )


class ResponseLogprobs(Contract):
    """One response's tokens."""

    token_ids: list[int]
    logprobs: list[float] = Field(description="natural log-probability of each under the plain model, temperature 1")


class LogprobsResponse(Contract):
    """The answer of `POST /logprobs`: one result a sample, in request order."""

    model: str
    adapter: ArtifactRef | None = Field(description="`job@version`, also where `job@latest` was asked for")
    policy_version: int
    results: list[ResponseLogprobs]
    timings: GenerateTimings
