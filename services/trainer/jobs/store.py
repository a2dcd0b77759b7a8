"""Job records in Redis: state, progress, events. Small on purpose; configs and data are files in the job's folder.

Keys: `job:{id}` (hash), `job:{id}:events` (stream), `jobs` (sorted set by creation), `jobs:active:{queue}` (set of the
queue's jobs that have not ended), `idempotency:{sha256}` (id and digest of the job that a key made).
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from rlhf.contracts.errors import Conflict, NotFound
from rlhf.contracts.jobs import BestVersion, JobEvent, JobKind, JobState, JobStatus
from services.trainer.experience.stream import experience_keys
from services.trainer.jobs.celery_app import JOB_QUEUES, LEARNER_QUEUE, queue_of
from services.trainer.jobs.lease import LeaseLost, lease_key
from services.trainer.jobs.record import EventKind, Level, event_json, read_status
from services.trainer.jobs.scripts import CREATE, TRANSITION
from services.trainer.settings import TrainerSettings

MAX_EVENTS = 10_000
"""Kept per job, older ones are forgotten: 300 bytes each, about 1.5 kB with a PPO step's metrics, so 15 MB at most."""
LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
PAUSED_BY_REQUEST = "paused by request"


@dataclass(frozen=True)
class Idempotency:
    """A caller's Idempotency-Key, with a digest of the body it came with."""

    key: str
    digest: str
    ttl_s: int


@dataclass(frozen=True)
class Wishes:
    """What a job's learner is asked to do at its next check."""

    cancel: bool
    pause: bool


class JobStore:
    """Reads and changes job records; every change of state is one atomic script that also writes the event."""

    def __init__(self, redis: Redis, settings: TrainerSettings) -> None:
        """Args: redis, a client that returns bytes; settings, how long ended jobs stay."""
        self.redis, self.settings = redis, settings
        self._create, self._transition = redis.register_script(CREATE), redis.register_script(TRANSITION)

    def create(
        self, job: str, kind: str, total_steps: int, idempotency: Idempotency | None = None, *, priority: int = 0
    ) -> str:
        """Adds a queued job; returns its id, or the id of the job that the same key and body made earlier.

        Raises:
            Conflict: the key was used with another body.
        """
        now = time.time()
        fields = {"id": job, "kind": kind, "state": JobState.QUEUED.value, "step": 0, "total_steps": total_steps}
        fields |= {"created_at": repr(now), "changed_at": repr(now), "attempts": 0, "crashes": 0, "priority": priority}
        value = json.dumps([job, idempotency.digest]) if idempotency else ""
        event = event_json("state", "info", "queued", f"{kind} job of {total_steps} steps waits for a worker", {})
        keys = [f"job:{job}", f"job:{job}:events", "jobs", _active_key(queue_of(kind)), _idempotency_key(idempotency)]
        args: list[str | int] = [
            job,
            repr(now),
            json.dumps(fields),
            event,
            value,
            idempotency.ttl_s if idempotency else 0,
        ]
        earlier = cast(bytes, self._create(keys=keys, args=args))
        return _same_body(earlier, idempotency) if earlier and idempotency else job

    def earlier(self, idempotency: Idempotency) -> str | None:
        """The id of the job that this key made.

        Raises:
            Conflict: the key was used with another body.
        """
        value = cast(bytes | None, self.redis.get(_idempotency_key(idempotency)))
        return _same_body(value, idempotency) if value else None

    def status(self, job: str) -> JobStatus:
        """The record.

        Raises:
            NotFound: no such job, or its record has expired.
        """
        record = cast(dict[bytes, bytes], self.redis.hgetall(f"job:{job}"))
        if b"state" not in record:
            raise NotFound(f"job {job!r} does not exist; GET /jobs lists the jobs")
        return read_status({k.decode(): v.decode() for k, v in record.items()}, time.time())

    def recent(self, state: JobState | None, kind: JobKind | None, limit: int) -> list[JobStatus]:
        """Jobs, newest first. Args: state, kind, only these; limit, at most so many."""
        found: list[JobStatus] = []
        for raw in cast(list[bytes], self.redis.zrevrange("jobs", 0, -1)):
            try:
                status = self.status(raw.decode())
            except NotFound:
                self.redis.zrem("jobs", raw)
                continue
            if state in (None, status.state) and kind in (None, status.kind):
                found.append(status)
                if len(found) == limit:
                    break
        return found

    def active(self) -> list[str]:
        """Ids of the jobs that have not ended."""
        return self._members(*JOB_QUEUES)

    def queue(self, name: str = LEARNER_QUEUE) -> list[str]:
        """Ids of a queue's waiting jobs in the order in which workers take them: highest priority first, then oldest.

        Args:
            name: of the queue, as queue_of gives it.
        """
        jobs = self._members(name)
        with self.redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hmget(f"job:{job}", ["state", "priority", "created_at"])
            rows = cast(list[list[bytes | None]], pipe.execute())
        queued = [
            (-int(priority or 0), float(created_at or 0), job)
            for job, (state, priority, created_at) in zip(jobs, rows, strict=True)
            if state is not None and state.decode() == JobState.QUEUED
        ]
        return [job for _, _, job in sorted(queued)]

    def forget(self, job: str) -> None:
        """Removes a job without a record from the active ones."""
        for queue in JOB_QUEUES:
            self.redis.srem(_active_key(queue), job)

    def fields(self, job: str, *names: str) -> tuple[str | None, ...]:
        """Raw fields of the record, None where absent."""
        values = cast(list[bytes | None], self.redis.hmget(f"job:{job}", list(names)))
        return tuple(None if value is None else value.decode() for value in values)

    def begin(self, job: str, token: str) -> bool:
        """Begins an attempt: queued or running → running; False when the job has ended or is gone.

        Raises:
            LeaseLost: the token does not hold the job's lease.
        """
        came_from = (JobState.QUEUED, JobState.RUNNING)
        return self._move(job, came_from, JobState.RUNNING, None, "a learner began", token=token)

    def finish(self, job: str, state: JobState, reason: str | None, token: str | None) -> bool:
        """A live state → succeeded, failed or cancelled. Args: token, of the lease under which it ran, if any."""
        level: Level = "error" if state == JobState.FAILED else "info"
        return self._move(job, LIVE, state, reason, reason or f"the job {state.value}", token=token, level=level)

    def requeue(self, job: str, reason: str, *, token: str | None = None, crashed: bool = False) -> bool:
        """Puts a running job back to queued. Args: crashed, its worker died; it did not stop."""
        level: Level = "warning" if crashed else "info"
        move = (JobState.RUNNING,), JobState.QUEUED, None, reason
        return self._move(job, *move, token=token, level=level, crashed=crashed)

    def request_cancel(self, job: str) -> JobStatus:
        """Cancels a waiting job at once and asks the learner of a running one to stop.

        Raises:
            NotFound: no such job.
            Conflict: it has ended.
        """
        self.status(job)
        # The flag first: a worker that begins the job right now sees it.
        self.redis.hset(f"job:{job}", "cancel", "1")
        waits = (JobState.QUEUED, JobState.PAUSED)
        if not self._move(job, waits, JobState.CANCELLED, "cancelled by request", "cancelled while it waited"):
            self._refuse_ended(job, "cancelled")
            self.add_event(job, "log", "info", "cancel_requested", "the learner stops at its next check", {})
        return self.status(job)

    def request_pause(self, job: str) -> JobStatus:
        """Pauses a waiting job at once and asks the learner of a running one to stop after its step.

        Raises:
            NotFound: no such job.
            Conflict: it has ended.
        """
        self._refuse_ended(job, "paused")
        self.redis.hset(f"job:{job}", "pause", "1")
        if self._move(job, (JobState.QUEUED,), JobState.PAUSED, PAUSED_BY_REQUEST, "paused before it ran"):
            return self.status(job)
        status = self._refuse_ended(job, "paused")
        if status.state == JobState.RUNNING:
            self.add_event(job, "log", "info", "pause_requested", "the learner stops at its next check", {})
        return status

    def pause(self, job: str, token: str, reason: str | None = None) -> bool:
        """Running → paused, by the learner whose token it is.

        Args:
            job: its id.
            token: of the lease under which it runs.
            reason: why the learner pauses it, which nobody can take back; None: because someone asked for it.

        Returns:
            False when who had asked for the pause has resumed the job meanwhile.
        """
        move = (JobState.RUNNING,), JobState.PAUSED
        if reason is not None:
            return self._move(job, *move, reason, f"paused: {reason}", token=token, level="warning")
        message = "paused; POST /jobs/{id}/resume goes on from the last checkpoint"
        return self._move(job, *move, PAUSED_BY_REQUEST, message, token=token, wished=True)

    def request_resume(self, job: str) -> tuple[JobStatus, bool]:
        """Takes a pause back: paused → queued, and a running job goes on as if nobody had asked.

        Returns:
            The job, and whether it needs a message to a learner.

        Raises:
            NotFound: no such job.
            Conflict: it has ended.
        """
        self._refuse_ended(job, "resumed")
        # The flag first: a learner that is about to pause the job finds it gone, and queues the job again.
        self.redis.hdel(f"job:{job}", "pause")
        moved = self._move(job, (JobState.PAUSED,), JobState.QUEUED, None, "resumed; waits for a worker")
        return self._refuse_ended(job, "resumed"), moved

    def wishes(self, job: str) -> Wishes:
        """What someone asked of its learner."""
        cancel, pause = self.fields(job, "cancel", "pause")
        return Wishes(cancel is not None, pause is not None)

    def progress(
        self,
        job: str,
        step: int,
        total: int,
        metrics: dict[str, float],
        step_s: float | None,
        best: BestVersion | None = None,
    ) -> None:
        """Records a step done. Args: metrics, finite ones; step_s, seconds a step takes at present; best, so far."""
        fields: dict[Any, Any] = {"step": step, "total_steps": total, "last_metrics": json.dumps(metrics), "crashes": 0}
        fields["progress_at"] = repr(time.time())
        if step_s is not None:
            fields["step_s"] = repr(step_s)
        if best is not None:
            fields["best"] = best.model_dump_json()
        self.redis.hset(f"job:{job}", mapping=fields)

    def add_event(self, job: str, kind: EventKind, level: Level, name: str, message: str, data: dict[str, Any]) -> None:
        """Appends to the job's events."""
        event = {"event": event_json(kind, level, name, message, data)}
        self.redis.xadd(f"job:{job}:events", cast(Any, event), maxlen=MAX_EVENTS, approximate=True)

    def events(self, job: str, after: str | None, limit: int) -> list[JobEvent]:
        """Events in order. Args: after, the id of the last one already known; limit, at most so many."""
        start = f"({after}" if after else "-"
        rows = cast(list[tuple[bytes, dict[bytes, bytes]]], self.redis.xrange(f"job:{job}:events", start, "+", limit))
        return [JobEvent(id=row_id.decode(), **json.loads(row[b"event"])) for row_id, row in rows]

    def _members(self, *queues: str) -> list[str]:
        members = cast(set[bytes], self.redis.sunion([_active_key(queue) for queue in queues]))
        return sorted(raw.decode() for raw in members)

    def _refuse_ended(self, job: str, verb: str) -> JobStatus:
        status = self.status(job)
        if status.state.final:
            raise Conflict(f"job {job} has ended: {status.state.value}; it cannot be {verb}, submit it again")
        return status

    def _move(
        self,
        job: str,
        came_from: tuple[JobState, ...],
        to: JobState,
        reason: str | None,
        message: str,
        *,
        token: str | None = None,
        level: Level = "info",
        crashed: bool = False,
        wished: bool = False,
    ) -> bool:
        active = [_active_key(queue) for queue in JOB_QUEUES]
        keys = [f"job:{job}", f"job:{job}:events", lease_key(job), *active, *experience_keys(job)]
        states = "".join(f",{state.value}" for state in came_from) + ","
        event = event_json("state", level, to.value, message, {})
        args = [job, token or "", states, to.value, reason or "", repr(time.time()), event, MAX_EVENTS]
        args += [self.settings.job_ttl_s, self.settings.experience_ttl_s, "1" if crashed else "", "1" if wished else ""]
        outcome, _ = cast(list[bytes], self._transition(keys=keys, args=args))
        if outcome == b"lease":
            raise LeaseLost(f"job {job}: this worker no longer holds its lease, so it may not make it {to.value}")
        return outcome == b"ok"


def _active_key(queue: str) -> str:
    # A set for each queue, whose size is how many workers of it there is work for: deploy/k8s/components/keda.
    return f"jobs:active:{queue}"


def _idempotency_key(idempotency: Idempotency | None) -> str:
    # Hashed: a caller's key may have any length and any characters.
    return f"idempotency:{hashlib.sha256((idempotency.key if idempotency else '').encode()).hexdigest()}"


def _same_body(value: bytes, idempotency: Idempotency) -> str:
    job, digest = json.loads(value)
    if digest != idempotency.digest:
        raise Conflict(
            f"Idempotency-Key {idempotency.key!r} was used for job {job} with another body or priority; send a new key"
        )
    return str(job)
