"""Server-sent events of two models that answer at once: text while it is written, and each answer marked at its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.console.answers import Answer, Question, follow, score
from services.console.backends import Backends
from services.console.pages import fragment


class EventStream(StreamingResponse):
    """A stream whose source is closed however it ends: complete, cut off, or before its first event."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        """Args: events, lines to send."""
        # A proxy that collects events before it passes them on would undo the stream.
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def compare(backends: Backends, question: Question) -> AsyncGenerator[str, None]:
    """The events. Each has one of: `answers`, their empty section; `text`, new; `card`, an answer as HTML; `end`.

    Args:
        backends: to ask. Closing this generator closes the connections to the policy, which then stops writing.
        question: for both models.
    """
    answers = [Answer(model, running=True) for model in question.models]
    yield _event(answers=fragment("answers.html.j2", answers=answers, seed=question.request.seed))
    news: asyncio.Queue[str | None] = asyncio.Queue()
    writers = [asyncio.create_task(_write(backends, question, answers, side, news)) for side in range(len(answers))]
    running = len(writers)
    try:
        while running:
            event = await news.get()
            if event is None:
                running -= 1
            else:
                yield event
    finally:
        # Waited for, so that the policy is let go before the answer to the browser ends.
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    for writer in writers:
        writer.result()  # Raises what is no ServiceError: a bug, which must not look like an end.
    if question.reward_model:
        await run_in_threadpool(score, backends, question, answers)
        for side in range(len(answers)):
            yield _card(answers, side)
    failed = sum(answer.error is not None for answer in answers)
    yield _event(end=("Both models have answered.", "One model failed.", "Both models failed.")[failed])


async def _write(
    backends: Backends, question: Question, answers: list[Answer], side: int, news: asyncio.Queue[str | None]
) -> None:
    """Puts a side's events into the queue, then None, whatever happens."""
    try:
        async for text in follow(backends, question, answers[side]):
            news.put_nowait(_event(side=side, text=text))
        news.put_nowait(_card(answers, side))
    finally:
        news.put_nowait(None)


def _card(answers: list[Answer], side: int) -> str:
    return _event(side=side, card=fragment("answer.html.j2", answer=answers[side], index=side))


def _event(**values: object) -> str:
    return f"data: {json.dumps(values)}\n\n"
