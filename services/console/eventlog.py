"""Jobs' events as far as they were read, so that a page which looks again every few seconds asks for new ones only."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Protocol

from rlhf.contracts.jobs import JobEvent

PAGE = 1000
MOST_EVENTS = 2000
"""Kept a job, of those that are not progress, which the curves show."""
MOST_JOBS = 32


class Source(Protocol):
    """What is needed of the trainer's client."""

    def events(self, job: str, *, after: str | None = None, limit: int = 1000) -> list[JobEvent]:
        """Events after one, in order."""


class _Log:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last: str | None = None
        self.kept: deque[JobEvent] = deque(maxlen=MOST_EVENTS)

    def extend(self, events: Iterable[JobEvent]) -> None:
        for event in events:
            self.last = event.id
            if event.kind != "progress":
                self.kept.append(event)


class EventLogs:
    """The logs of the jobs that were looked at last. Safe to use from several threads."""

    def __init__(self, source: Source) -> None:
        """Args: source, of events."""
        self._source = source
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, job: str) -> list[JobEvent]:
        """A job's events in order, without progress.

        Raises:
            ServiceError: the trainer's own.
        """
        with self._lock:
            log = self._logs.setdefault(job, _Log())
            self._logs.move_to_end(job)
            while len(self._logs) > MOST_JOBS:
                self._logs.popitem(last=False)
        with log.lock:
            while events := self._source.events(job, after=log.last, limit=PAGE):
                log.extend(events)
                if len(events) < PAGE:
                    break
            return list(log.kept)
