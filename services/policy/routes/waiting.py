"""What every dialect does around the engine: refuse text that no tokenizer reads, submit, and wait for an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from rlhf.contracts.errors import ErrorBody, GenerationFailed, InvalidInput
from services.policy.engine.requests import EngineRequest, Notify

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (401, 404, 409, 413, 422, 424, 429, 503)
}
"""What generation answers besides text, for the OpenAPI schema."""


def check_text(where: str, text: str) -> None:
    """Refuses what JSON can spell and no tokenizer can read: half of a surrogate pair. Raises InvalidInput."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{where} has the lone surrogate {text[error.start]!r}; send whole characters") from error


class Progress:
    """Wakes the event loop when the engine's thread has something new. Made inside the loop."""

    def __init__(self) -> None:
        """Belongs to the loop that runs now."""
        self._loop, self._new = asyncio.get_running_loop(), asyncio.Event()

    def notify(self) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._new.set)

    async def wait(self) -> None:
        """Returns at the next news, or at once when there were some since the last call."""
        await self._new.wait()
        self._new.clear()


async def generate_all(request: Request, submit: Callable[[], EngineRequest]) -> EngineRequest:
    """Submits in a thread, since encoding takes time, and returns the request when its outcome is there.

    Raises:
        ServiceError: what the request failed with. When the client goes away, its rows leave at the next token.
    """
    queued = await run_in_threadpool(submit)
    # Shielded: the engine looks whether the outcome is open, then resolves it; cancelling it in between breaks that.
    outcome = asyncio.shield(asyncio.wrap_future(queued.outcome))
    await _finish_unless_gone(request, queued, outcome)
    return queued


async def generate_some(request: Request, submit: Callable[[Notify], EngineRequest]) -> Followed:
    """Submits a request that is followed while it runs; returns it at its first token, or when it is complete.

    Args:
        request: of the client.
        submit: takes what to call when there is something new.

    Raises:
        ServiceError: as generate_all, while nothing was sent yet.
    """
    progress = Progress()
    queued = await run_in_threadpool(submit, progress.notify)

    async def first_token() -> None:
        while not queued.outcome.done() and not any(row.token_ids for row in queued.rows):
            await progress.wait()
        if queued.outcome.done():
            queued.outcome.result()

    await _finish_unless_gone(request, queued, asyncio.ensure_future(first_token()))
    progress.notify()
    return Followed(queued, progress)


@dataclass(frozen=True)
class Followed:
    """A request that runs, and the news of it."""

    queued: EngineRequest
    progress: Progress


async def _finish_unless_gone(request: Request, queued: EngineRequest, awaited: asyncio.Future[Any]) -> None:
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({awaited, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not awaited.done():
            raise GenerationFailed("the client closed the connection before the response was complete")
        awaited.result()
    finally:
        if not awaited.done():
            queued.abandoned.set()
        awaited.cancel()
        gone.cancel()


async def disconnected(request: Request) -> None:
    """Returns when the client has gone away; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
