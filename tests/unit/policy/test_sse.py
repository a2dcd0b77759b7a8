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


class Silent:
    """A feed that has nothing to say yet."""

    def news(self) -> list[Word]:
        return []

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


def test_a_stream_that_is_cut_off_leaves_nobody_waiting() -> None:
    async def cut_off() -> int:
        queued = SimpleNamespace(outcome=Future(), abandoned=asyncio.Event())
        events = stream(SimpleNamespace(receive=never), Followed(queued, Progress()), Silent())
        reading = asyncio.ensure_future(anext(events.body_iterator))
        await asyncio.sleep(0.01)  # it waits for news now
        reading.cancel()
        await asyncio.wait({reading})
        await asyncio.sleep(0)  # what was cancelled with it ends
        return len(asyncio.all_tasks())

    assert asyncio.run(cut_off()) == 1  # this one
