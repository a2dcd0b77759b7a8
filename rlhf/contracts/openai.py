"""Bodies of the policy service's OpenAI dialect: completions, chat completions, their streams, models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from rlhf.contracts.base import Contract, Message

StopTexts = str | Annotated[list[str], Field(max_length=4)]
FinishWord = Literal["stop", "length"]


class StreamOptions(Contract):
    """`stream_options`."""

    include_usage: bool = Field(False, description="one more event at the end, without choices, has the usage")


class OpenAiSampling(Contract):
    """What both requests share. The last six settings are extensions, named as in vLLM where it has them."""

    model: str | None = Field(None, description="`job@version` is an adapter; any other name is the base model")
    max_tokens: int | None = Field(None, ge=1, description="most tokens of a response, EOS included")
    temperature: float = Field(1.0, ge=0, le=2, description="0 means greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=128, description="responses to each prompt")
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: StopTexts | None = Field(None, description="at most 4 texts that end a response")
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="counts tokens of prompt and response")
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="as frequency_penalty")
    stream: bool = Field(False, description="server-sent events, ended by `data: [DONE]`")
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="taken and not used")
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    typical_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    no_repeat_ngram_size: int = Field(0, ge=0, le=64)
    min_tokens: int = Field(0, ge=0, description="EOS is not sampled before this many tokens")


class CompletionRequest(OpenAiSampling):
    """`POST /v1/completions`: raw text, without a chat template."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(description="texts, or token ids")
    logprobs: int | None = Field(None, ge=0, le=5, description="of chosen tokens, and so many likeliest ones")


class TextPart(Contract):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(Contract):
    """One turn. `developer` is another word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> Message:
        """The turn as the chat template takes it; parts are joined."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=text)


class ChatRequest(OpenAiSampling):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20, description="the likeliest tokens at each step; with logprobs")


class Usage(Contract):
    """Tokens of a request; a prompt counts once however many responses it gets."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(Contract):
    """One entry a token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None = None
    text_offset: list[int]


class CompletionChoice(Contract):
    """One response."""

    index: int
    text: str
    finish_reason: FinishWord
    logprobs: CompletionLogprobs | None = None


class Envelope(Contract):
    """What every answer and every event of a stream says of itself; its kind is in `object`."""

    id: str
    created: int = Field(description="seconds since the epoch")
    model: str
    system_fingerprint: str = Field(description="the software that answers, with its version")


class Completion(Envelope):
    """`POST /v1/completions`, answered."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice] = Field(description="by prompt, then sample")
    usage: Usage


class ChatAlternative(Contract):
    """A token, with its log-probability under the distribution sampled from."""

    token: str
    bytes: list[int]
    logprob: float


class ChatToken(ChatAlternative):
    """The token that was chosen."""

    top_logprobs: list[ChatAlternative] = Field(default_factory=list)


class ChatLogprobs(Contract):
    """One entry a token."""

    content: list[ChatToken]


class ChatAnswer(Contract):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(Contract):
    """One response."""

    index: int
    message: ChatAnswer
    finish_reason: FinishWord
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Envelope):
    """`POST /v1/chat/completions`, answered."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class CompletionChunkChoice(Contract):
    """What one response has more than before."""

    index: int
    text: str
    finish_reason: FinishWord | None = None
    logprobs: CompletionLogprobs | None = None


class CompletionChunk(Envelope):
    """One event of a completion's stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChunkChoice]
    usage: Usage | None = None


class ChatDelta(Contract):
    """What the assistant's turn has more than before."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _without_nulls(self, write: SerializerFunctionWrapHandler) -> dict[str, str]:
        """Clients put deltas together, some by the fields that are there: one that says nothing is left out."""
        return {name: value for name, value in write(self).items() if value is not None}


class ChatChunkChoice(Contract):
    """What one response has more than before."""

    index: int
    delta: ChatDelta
    finish_reason: FinishWord | None = None
    logprobs: ChatLogprobs | None = None


class ChatChunk(Envelope):
    """One event of a chat completion's stream."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class ModelCard(Contract):
    """One model that requests can name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when this server started, seconds since the epoch")
    owned_by: str = "rlhf-services"
    parent: str | None = Field(None, description="of an adapter: its base model")


class ModelList(Contract):
    """`GET /v1/models`: the base model, and the adapters in memory; others are loaded when they are named."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
