"""The client of the job API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from pydantic import RootModel

from rlhf.clients.http import ServiceClient
from rlhf.contracts.errors import Unavailable
from rlhf.contracts.estimate import Estimate
from rlhf.contracts.jobs import (
    AnyJobConfig,
    ArtifactFile,
    JobEvent,
    JobKind,
    JobState,
    JobStatus,
    MetricsSeries,
)

SILENCE_S = 60.0
"""Seconds of silence after which an event stream counts as broken; the server speaks every 15."""
RECONNECT_S = 1.0


class TrainerClient(ServiceClient):
    """Submits, follows, cancels and downloads. Errors are those of the server, by their type."""

    service = "trainer"

    def submit(self, config: AnyJobConfig, *, key: str | None = None, priority: int = 0) -> JobStatus:
        """Queues a job; sent again after an outage, it still makes one job.

        Args:
            config: of the job.
            key: Idempotency-Key: the same key and config always mean the same job; null draws one for this call.
            priority: -10 to 10; a free learner takes the highest first.
        """
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        body = config.model_dump(mode="json", by_alias=True)
        params = {"priority": priority}
        return self.fetch(JobStatus, "POST", "/jobs", json=body, params=params, headers=headers)

    def estimate(self, config: AnyJobConfig) -> Estimate:
        """What a job would take; checked as a submission is, and nothing is queued.

        Args:
            config: of the job.
        """
        body = config.model_dump(mode="json", by_alias=True)
        return self.fetch(Estimate, "POST", "/jobs", json=body, params={"dry_run": "true"})

    def jobs(self, state: JobState | None = None, kind: JobKind | None = None, *, limit: int = 100) -> list[JobStatus]:
        """Jobs, newest first. Args: state, kind, only these; limit, at most so many."""
        params = {"state": state.value if state else None, "kind": kind, "limit": limit}
        return self.fetch(RootModel[list[JobStatus]], "GET", "/jobs", params=params).root

    def job(self, job: str) -> JobStatus:
        """State, progress, last metrics, and why it failed."""
        return self.fetch(JobStatus, "GET", _path(job))

    def metrics(self, job: str) -> MetricsSeries:
        """One row a step."""
        return self.fetch(MetricsSeries, "GET", _path(job, "metrics"))

    def events(self, job: str, *, after: str | None = None, limit: int = 1000) -> list[JobEvent]:
        """Events so far, in order. Args: after, the id of the last one known; limit, at most so many."""
        params = {"after": after, "limit": limit}
        return self.fetch(RootModel[list[JobEvent]], "GET", _path(job, "events"), params=params).root

    def follow(self, job: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """Events as they come, until the job has ended; connects again when the stream breaks.

        Args:
            job: its id.
            after: the id of the last event already known.
        """
        while True:
            # The state first: when it is final, the stream that is read next ends after the last event.
            ended = self.job(job).state.final
            try:
                for event in self._stream(job, after):
                    after = event.id
                    yield event
            except Unavailable:
                # How long an outage may last is decided by the retries of the request for the state.
                time.sleep(RECONNECT_S)
                continue
            if ended:
                return

    def wait(self, job: str, tell: Callable[[JobEvent], None] | None = None) -> JobStatus:
        """Waits until a job has ended, whatever its end, a pause included. Args: tell, is given every event."""
        for event in self.follow(job):
            if tell is not None:
                tell(event)
        return self.job(job)

    def cancel(self, job: str) -> JobStatus:
        """Cancels it; a running job ends at its next check.

        Raises:
            Conflict: it has ended.
        """
        return self.fetch(JobStatus, "POST", _path(job, "cancel"))

    def pause(self, job: str) -> JobStatus:
        """Pauses it; a running job stops after its step.

        Raises:
            Conflict: it has ended.
        """
        return self.fetch(JobStatus, "POST", _path(job, "pause"))

    def resume(self, job: str) -> JobStatus:
        """Puts a paused job back into the queue; it goes on from its last checkpoint.

        Raises:
            Conflict: it has ended.
        """
        return self.fetch(JobStatus, "POST", _path(job, "resume"))

    def artifacts(self, job: str) -> list[ArtifactFile]:
        """Its files, and under adapters/ and reward_models/ what it published."""
        return self.fetch(RootModel[list[ArtifactFile]], "GET", _path(job, "artifacts")).root

    def artifact(self, job: str, path: str) -> bytes:
        """One small file of it. Args: path, as `artifacts` lists it."""
        return self.send("GET", _path(job, "artifacts", path)).content

    def download(self, job: str, path: str, target: Path) -> None:
        """Writes one file of it, whole or not at all. Args: path, as `artifacts` lists it; target, a file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with self.stream("GET", _path(job, "artifacts", path)) as answer, temporary.open("wb") as file:
                file.writelines(answer.iter_bytes())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _stream(self, job: str, after: str | None) -> Iterator[JobEvent]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        with self.stream("GET", _path(job, "events"), headers=headers, timeout=SILENCE_S) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield JobEvent.model_validate_json(line.removeprefix("data: "))


def _path(job: str, *parts: str) -> str:
    return "/".join(["/jobs", quote(job, safe=""), *(quote(part) for part in parts)])
