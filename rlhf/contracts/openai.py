"""Bodies of the policy service's OpenAI dialect: completions, chat completions, models. Not its streams."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rlhf.contracts.base import Contract, Message

StopTexts = str | Annotated[list[str], Field(max_length=4)]
FinishWord = Literal["stop", "length"]


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
    stream: bool = Field(False, description="must be false: streams are not offered yet")
    user: str | None = Field(None, description="taken and not used")
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    typical_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    no_repeat_ngram_size: int = Field(0, ge=0, le=64)
    min_tokens: int = Field(0, ge=0, description="EOS is not sampled before this many tokens")


class CompletionRequest(OpenAiSampling):
    """`POST /v1/completions`: raw text, without a chat template."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1024)]
    logprobs: int | None = Field(None, ge=0, le=0, description="0: log-probabilities of the chosen tokens; null: none")


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
    top_logprobs: int | None = Field(None, ge=0, le=0, description="alternatives to the chosen tokens: none offered")


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


class Completion(Contract):
    """`POST /v1/completions`, answered."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(description="seconds since the epoch")
    model: str
    choices: list[CompletionChoice] = Field(description="by prompt, then sample")
    usage: Usage


class ChatToken(Contract):
    """One token, with its log-probability under the distribution sampled from."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[Any] = Field(default_factory=list, max_length=0)


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


class ChatCompletion(Contract):
    """`POST /v1/chat/completions`, answered."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="seconds since the epoch")
    model: str
    choices: list[ChatChoice]
    usage: Usage


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
