"""Server-sent events as JSON objects. Not a full reader: comments, names and ids are skipped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx


class NoStreams(Exception):
    """The server has no such stream; says what it answered."""


class StreamFailed(Exception):
    """The server reported an error inside the stream."""


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The `data:` of each event up to the stream's end or `[DONE]`.

    Raises:
        StreamFailed: an event is an error, in TGI's shape or in OpenAI's.
    """
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if not data or data == "[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            raise StreamFailed(data)
        yield event


async def expect_stream(response: httpx.Response) -> None:
    """Checks an answer's head.

    Raises:
        NoStreams: the route does not exist, or refuses to stream.
        httpx.HTTPStatusError: any other status than 200.
    """
    kind = response.headers.get("content-type", "")
    if response.status_code == 200 and kind.startswith("text/event-stream"):
        return
    text = (await response.aread()).decode(errors="replace")
    if response.status_code in (404, 405) or "not offered" in text or response.status_code == 200:
        raise NoStreams(f"{response.request.url.path} answers {response.status_code}")
    response.raise_for_status()
