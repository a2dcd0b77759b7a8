"""Server-sent events of a request that runs: `data:` lines, one event each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from rlhf.contracts.errors import ErrorBody, InternalError, ServiceError
from rlhf.serving.logs import request_id
from services.policy.routes.waiting import Followed, disconnected

log = logging.getLogger(__name__)


class Feed(Protocol):
    """What a dialect says about a request that runs."""

    def news(self) -> Sequence[BaseModel]:
        """Events of the tokens that came since the last call."""

    def rest(self) -> Sequence[BaseModel]:
        """The last events, when the request is complete and there are no more news."""


class EventStream(StreamingResponse):
    """A stream that lets its request go however it ends: complete, cut off, or before its first event."""

    def __init__(self, lines: AsyncIterator[str], followed: Followed) -> None:
        """Args: lines, what to send; followed, the request behind them."""
        # A proxy that collects events before it passes them on would undo the stream.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self._followed = followed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Not in the generator, which has no end where it never began. Rows leave at the next token.
            self._followed.queued.abandoned.set()


def stream(request: Request, followed: Followed, feed: Feed, *, last: str | None = None) -> EventStream:
    """The stream of a request.

    Args:
        request: of the client.
        followed: from `generate_some`.
        feed: makes the events.
        last: data of a line of its own at the end.
    """
    return EventStream(_lines(request, followed, feed, last), followed)


async def _lines(request: Request, followed: Followed, feed: Feed, last: str | None) -> AsyncIterator[str]:
    gone = asyncio.ensure_future(disconnected(request))
    try:
        async for event in _events(followed, feed, gone):
            if gone.done():
                return
            yield f"data: {event.model_dump_json()}\n\n"
        if last is not None:
            yield f"data: {last}\n\n"
    finally:
        gone.cancel()


async def _events(followed: Followed, feed: Feed, gone: asyncio.Future[None]) -> AsyncIterator[BaseModel]:
    queued = followed.queued
    while not gone.done():
        # Looked at first, so that the news below are all there are when it is complete.
        complete = queued.outcome.done()
        try:
            events = [*feed.news()]
            if complete:
                error = queued.outcome.exception()
                events += [describe(error)] if error is not None else feed.rest()
        except Exception as error:  # whatever it is: a stream that just ends looks complete
            log.exception("a stream's events could not be made")
            events, complete = [describe(error)], True
        for event in events:
            yield event
        if complete:
            return
        news = asyncio.ensure_future(followed.progress.wait())
        try:
            await asyncio.wait({news, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The server cancels this wait, too; what is then left waiting would be destroyed while it waits.
            news.cancel()


def describe(error: BaseException) -> ErrorBody:
    """An error after the first byte, when the status is sent already."""
    if not isinstance(error, ServiceError):
        error = InternalError(f"unexpected {type(error).__name__}; this is a bug")
    return ErrorBody(error=error.message, error_type=error.error_type, request_id=request_id.get())
