"""The events of a job as server-sent events: from any point, until the job has ended. A broken connection resumes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

from rlhf.contracts.errors import NotFound
from rlhf.contracts.jobs import JobEvent
from services.trainer.jobs.store import JobStore

POLL_S = 0.5
PAGE = 500


async def stream_events(
    jobs: JobStore, job: str, after: str | None, keepalive_s: float, stopping: threading.Event
) -> AsyncIterator[str]:
    """Yields events as they come; ends after the last event of an ended job.

    Args:
        jobs: records.
        job: an existing job.
        after: the id of the last event that the client has.
        keepalive_s: seconds of silence after which a comment is sent, so that proxies keep the connection.
        stopping: set when the server shuts down; clients then connect again with Last-Event-ID.
    """
    spoke = time.monotonic()
    while not stopping.is_set():
        # The state first: when it is final, its event is already among the events read after it.
        ended = await asyncio.to_thread(_ended, jobs, job)
        events = await asyncio.to_thread(jobs.events, job, after, PAGE)
        for event in events:
            after, spoke = event.id, time.monotonic()
            yield render(event)
        if events:
            continue
        if ended:
            return
        if time.monotonic() - spoke >= keepalive_s:
            spoke = time.monotonic()
            yield ": alive\n\n"
        await asyncio.sleep(POLL_S)


def render(event: JobEvent) -> str:
    """One server-sent event. JSON has no line breaks outside its strings, where they are escaped."""
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"


def _ended(jobs: JobStore, job: str) -> bool:
    try:
        return jobs.status(job).state.final
    except NotFound:
        return True
