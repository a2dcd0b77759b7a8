"""What every dialect does around the engine: refuse text that no tokenizer reads, and wait for an outcome."""

from __future__ import annotations

import asyncio

from fastapi import Request

from rlhf.contracts.errors import GenerationFailed, InvalidInput
from services.policy.engine.requests import EngineRequest

POLL_S = 0.5
"""Seconds between looks at whether the client is still there."""


def check_text(where: str, text: str) -> None:
    """Refuses what JSON can spell and no tokenizer can read: half of a surrogate pair. Raises InvalidInput."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{where} has the lone surrogate {text[error.start]!r}; send whole characters") from error


async def wait_for_outcome(request: Request, queued: EngineRequest) -> None:
    """Returns when the outcome is there. Raises its error; gives the rows up when the client goes away."""
    outcome = asyncio.wrap_future(queued.outcome)
    while not (await asyncio.wait({outcome}, timeout=POLL_S))[0]:
        if await request.is_disconnected():
            queued.abandoned.set()
            outcome.cancel()
            raise GenerationFailed("the client closed the connection before the response was complete")
    outcome.result()
