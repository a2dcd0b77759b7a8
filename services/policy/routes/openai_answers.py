"""Our outcomes in OpenAI's words: whole objects, and the chunks of a stream."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.openai import (
    ChatAlternative,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatRequest,
    ChatToken,
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    CompletionLogprobs,
    CompletionRequest,
    FinishWord,
    OpenAiSampling,
    Usage,
)
from rlhf.lm.loading import TextModel
from rlhf.serving.logs import request_id
from services.policy.engine.requests import EngineRequest
from services.policy.engine.rows import Row
from services.policy.routes.info import service_version
from services.policy.routes.text_stream import Piece, TextStream, pieces_of

FINGERPRINT = f"rlhf-services {service_version()}"


def envelope(prefix: str, base: TextModel, body: OpenAiSampling, queued: EngineRequest) -> dict[str, Any]:
    """The fields of `Envelope`. Args: prefix, of the id; base, that answers; body, as asked; queued, its request."""
    return {
        "id": f"{prefix}-{request_id.get()}",
        "created": int(time.time()),
        "model": queued.adapter or body.model or base.name,
        "system_fingerprint": FINGERPRINT,
    }


def completion_answer(base: TextModel, body: CompletionRequest, done: EngineRequest) -> Completion:
    """OpenAI's completion object of a finished request."""
    choices = []
    for index, row in enumerate(done.outcome.result().rows):
        pieces = _visible(pieces_of(base.tokenizer, row.token_ids, row.sampling.stop))
        choices.append(
            CompletionChoice(
                index=index,
                text=_text(pieces),
                finish_reason=_finish(row),
                logprobs=None if body.logprobs is None else _completion_logprobs(base.tokenizer, row, pieces, 0),
            )
        )
    return Completion(
        **envelope("cmpl", base, body, done),
        choices=choices,
        usage=_usage(done.rows),
    )


def chat_answer(base: TextModel, body: ChatRequest, done: EngineRequest) -> ChatCompletion:
    """OpenAI's chat completion object of a finished request."""
    choices = []
    for index, row in enumerate(done.outcome.result().rows):
        pieces = _visible(pieces_of(base.tokenizer, row.token_ids, row.sampling.stop))
        choices.append(
            ChatChoice(
                index=index,
                message=ChatAnswer(content=_text(pieces)),
                finish_reason=_finish(row),
                logprobs=_chat_logprobs(base.tokenizer, row, pieces) if body.logprobs else None,
            )
        )
    return ChatCompletion(
        **envelope("chatcmpl", base, body, done),
        choices=choices,
        usage=_usage(done.rows),
    )


@dataclass
class Reader:
    """How far the stream of one response has come."""

    row: Row
    text: TextStream
    read: int = 0
    given: int = 0
    finished: bool = False
    pieces: list[Piece] = field(default_factory=list)

    def advance(self) -> bool:
        """Takes the tokens there are into `pieces`, special ones left out. Returns whether there is news."""
        self.pieces = []
        ended = self.row.finish_reason is not None
        while self.read < len(self.row.token_ids):
            self.pieces += _visible(self.text.add(self.row.token_ids[self.read]))
            self.read += 1
        if ended and not self.finished:
            self.pieces += _visible(self.text.finish())
            self.finished = True
            return True
        return bool(self.pieces)


class OpenAiFeed(ABC):
    """What both streams share. Subclasses say what a choice and a chunk are."""

    prefix: str

    def __init__(self, base: TextModel, body: OpenAiSampling, running: EngineRequest) -> None:
        """Args: base, of the tokenizer; body, what was asked; running, the request."""
        self._tokenizer, self._running = base.tokenizer, running
        self._wants_usage = body.stream_options is not None and body.stream_options.include_usage
        self._envelope = envelope(self.prefix, base, body, running)
        self._readers = [Reader(row, TextStream(base.tokenizer, row.sampling.stop)) for row in running.rows]

    def news(self) -> list[BaseModel]:
        """See Feed."""
        readers = [(index, reader) for index, reader in enumerate(self._readers) if not reader.finished]
        return [self._chunk([self._choice(index, reader)]) for index, reader in readers if reader.advance()]

    def rest(self) -> list[BaseModel]:
        """See Feed."""
        return [self._chunk([], _usage(self._running.rows))] if self._wants_usage else []

    @abstractmethod
    def _choice(self, index: int, reader: Reader) -> Any:
        """What this response has more than before."""

    @abstractmethod
    def _chunk(self, choices: list[Any], usage: Usage | None = None) -> BaseModel:
        """An event with these choices."""


class CompletionFeed(OpenAiFeed):
    """The events of a completion's stream."""

    prefix = "cmpl"

    def __init__(self, base: TextModel, body: CompletionRequest, running: EngineRequest) -> None:
        """See OpenAiFeed."""
        super().__init__(base, body, running)
        self._reported = body.logprobs is not None

    def _choice(self, index: int, reader: Reader) -> CompletionChunkChoice:
        logprobs = None
        if self._reported:
            logprobs = _completion_logprobs(self._tokenizer, reader.row, reader.pieces, reader.given)
        text = _text(reader.pieces)
        reader.given += len(text)
        finish = _finish(reader.row) if reader.finished else None
        return CompletionChunkChoice(index=index, text=text, finish_reason=finish, logprobs=logprobs)

    def _chunk(self, choices: list[CompletionChunkChoice], usage: Usage | None = None) -> CompletionChunk:
        return CompletionChunk(**self._envelope, choices=choices, usage=usage)


class ChatFeed(OpenAiFeed):
    """The events of a chat completion's stream; the first of each response has the role."""

    prefix = "chatcmpl"

    def __init__(self, base: TextModel, body: ChatRequest, running: EngineRequest) -> None:
        """See OpenAiFeed."""
        super().__init__(base, body, running)
        self._reported = body.logprobs
        self._greeted = False

    def news(self) -> list[BaseModel]:
        """See Feed."""
        if self._greeted:
            return super().news()
        self._greeted = True
        first = ChatDelta(role="assistant", content="")
        greetings = [ChatChunkChoice(index=index, delta=first) for index in range(len(self._readers))]
        return [*(self._chunk([greeting]) for greeting in greetings), *super().news()]

    def _choice(self, index: int, reader: Reader) -> ChatChunkChoice:
        return ChatChunkChoice(
            index=index,
            delta=ChatDelta(content=_text(reader.pieces)),
            finish_reason=_finish(reader.row) if reader.finished else None,
            logprobs=_chat_logprobs(self._tokenizer, reader.row, reader.pieces) if self._reported else None,
        )

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(**self._envelope, choices=choices, usage=usage)


def _visible(pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if not piece.special]


def _text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _finish(row: Row) -> FinishWord:
    return "length" if row.ended_by == "length" else "stop"


def _usage(rows: list[Row]) -> Usage:
    prompts = sum(len(row.prompt_ids) for row in rows if row.sample_index == 0)
    responses = sum(len(row.token_ids) for row in rows)
    return Usage(prompt_tokens=prompts, completion_tokens=responses, total_tokens=prompts + responses)


def _alternatives(tokenizer: PreTrainedTokenizerBase, row: Row, index: int) -> list[tuple[str, float]]:
    top = row.top_logprobs[index] if row.top_logprobs else []
    return [(str(tokenizer.decode([token])), logprob) for token, logprob in top if math.isfinite(logprob)]


def _completion_logprobs(
    tokenizer: PreTrainedTokenizerBase, row: Row, pieces: list[Piece], offset: int
) -> CompletionLogprobs:
    """Args: offset, characters of the response before these pieces."""
    offsets = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece.text)
    # Parts of characters may share a text: the likeliest keeps it.
    top = [dict(reversed(_alternatives(tokenizer, row, piece.index))) for piece in pieces]
    return CompletionLogprobs(
        tokens=[piece.text for piece in pieces],
        token_logprobs=[row.behavior_logprobs[piece.index] for piece in pieces],
        top_logprobs=top if row.extras.top_logprobs else None,
        text_offset=offsets,
    )


def _chat_logprobs(tokenizer: PreTrainedTokenizerBase, row: Row, pieces: list[Piece]) -> ChatLogprobs:
    return ChatLogprobs(
        content=[
            ChatToken(
                token=piece.text,
                bytes=list(piece.text.encode()),
                logprob=row.behavior_logprobs[piece.index],
                top_logprobs=[
                    ChatAlternative(token=text, bytes=list(text.encode()), logprob=logprob)
                    for text, logprob in _alternatives(tokenizer, row, piece.index)
                ],
            )
            for piece in pieces
        ]
    )
