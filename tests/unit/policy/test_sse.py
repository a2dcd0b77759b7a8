"""Streams of events: what a client sees when one of our own lines fails."""

import asyncio
import json
from concurrent.futures import Future
from types import SimpleNamespace

from pydantic import BaseModel

from services.policy.routes.sse import stream
from services.policy.routes.waiting import Followed, Progress


class Word(BaseModel):
    word: str


class Broken:
    """A feed whose second call fails."""

    calls = 0

    def news(self) -> list[Word]:
        self.calls += 1
        if self.calls == 2:
            raise KeyError("a bug")
        return [Word(word="hello")]

    def rest(self) -> list[Word]:
        raise AssertionError("the request never completes")


async def never() -> None:
    await asyncio.Event().wait()


def test_a_feed_that_fails_ends_its_stream_with_an_error() -> None:
    async def read() -> list[str]:
        progress = Progress()
        queued = SimpleNamespace(outcome=Future(), abandoned=asyncio.Event())
        events = stream(SimpleNamespace(receive=never), Followed(queued, progress), Broken())
        progress.notify()
        return [line async for line in events.body_iterator]

    first, last = asyncio.run(read())
    assert json.loads(first.removeprefix("data: ")) == {"word": "hello"}
    error = json.loads(last.removeprefix("data: "))
    assert error["error_type"] == "internal"
    assert "KeyError" in error["error"]
