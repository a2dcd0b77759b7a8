"""What models say to one prompt, whole or while they write, and what a reward model says of it. No HTTP of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from rlhf.contracts.errors import ServiceError
from rlhf.contracts.openai import ChatRequest, ChatToken
from rlhf.contracts.reward import RewardRequest, RewardSample, SampleFailure, SampleScore
from services.console.backends import Backends
from services.console.responses import Piece, mark_repeats, mark_tokens


@dataclass(frozen=True)
class Question:
    """What both models are asked.

    Attributes:
        prompt: a person's text.
        request: it and the sampling settings; names no model.
        models: left and right.
        reward_model: scores the answers; "" for none.
    """

    prompt: str
    request: ChatRequest
    models: tuple[str, str]
    reward_model: str

    def to(self, model: str) -> ChatRequest:
        """The request to one model."""
        return self.request.model_copy(update={"model": model})


@dataclass
class Answer:
    """What one model said, or why it said nothing or no more. `running`: it still writes, and has no pieces yet."""

    model: str
    text: str = ""
    pieces: list[Piece] = field(default_factory=list)
    finish: str = ""
    tokens: int = 0
    error: str | None = None
    score: SampleScore | None = None
    score_error: str | None = None
    running: bool = False

    def mark(self, tokens: Sequence[ChatToken]) -> None:
        """Cuts the text, which is complete, into pieces. Args: tokens, of it; none where the server tells none."""
        self.tokens, self.running = len(tokens), False
        self.pieces = mark_tokens(tokens) if tokens else mark_repeats(self.text)


def ask(backends: Backends, question: Question, model: str) -> Answer:
    """A model's whole answer. One model's failure is its answer's error, and leaves the other's answer."""
    answer = Answer(model)
    try:
        choice = backends.policy.chat(question.to(model)).choices[0]
    except ServiceError as error:
        answer.error = error.message
        return answer
    answer.text, answer.finish = choice.message.content, choice.finish_reason
    answer.mark([] if choice.logprobs is None else choice.logprobs.content)
    return answer


async def follow(backends: Backends, question: Question, answer: Answer) -> AsyncIterator[str]:
    """Fills an answer while its model writes, errors as `ask`; yields the text that is new.

    Args:
        backends: has the policy, which lets the request go when this ends early.
        question: what is asked.
        answer: empty, with its model; complete at the end.
    """
    tokens: list[ChatToken] = []
    try:
        async with aclosing(backends.policy.chat_stream(question.to(answer.model))) as chunks:
            async for chunk in chunks:
                for choice in chunk.choices:
                    tokens += [] if choice.logprobs is None else choice.logprobs.content
                    answer.finish = choice.finish_reason or answer.finish
                    if new := choice.delta.content:
                        answer.text += new
                        yield new
    except ServiceError as error:
        answer.error = error.message
    answer.mark(tokens)


def score(backends: Backends, question: Question, answers: Sequence[Answer]) -> None:
    """Adds to each complete answer its score, or why it has none."""
    said = [answer for answer in answers if answer.error is None]
    if not said or not question.reward_model:
        return
    samples = [RewardSample(prompt=question.prompt, response=answer.text) for answer in said]
    try:
        results = backends.reward.score(RewardRequest(samples=samples, model=question.reward_model)).results
    except ServiceError as error:
        for answer in said:
            answer.score_error = error.message
        return
    for answer, result in zip(said, results, strict=True):
        if isinstance(result, SampleFailure):
            answer.score_error = result.error
        else:
            answer.score = result
