"""The experience of one job in Redis: pushed once, read by the learner's group, deleted when acknowledged.

Keys: `experience:{job}` (stream, group `learner`), `experience:{job}:seen` (set of batch ids, about 100 bytes each for
the job's life), `experience:{job}:failed` (hash of batch id to a Failure as JSON). The stream holds what is
not yet acknowledged: at most the shards of the steps that the learner enqueued since its last checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from redis import Redis, ResponseError

from services.trainer.experience.batch import ExperienceBatch, pack, unpack

GROUP = "learner"
CONSUMER = "learner"
"""One name for all attempts: the job's lease allows one learner, and a new attempt inherits the old one's entries."""

_PUSH = """
local state = redis.call('HGET', KEYS[4], 'state')
if not state or state == 'succeeded' or state == 'failed' or state == 'cancelled' then return -1 end
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return 0 end
redis.call('XADD', KEYS[1], '*', 'id', ARGV[1], 'batch', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
"""
_FAIL = """
local state = redis.call('HGET', KEYS[2], 'state')
if not state or state == 'succeeded' or state == 'failed' or state == 'cancelled' then return 0 end
if redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


def experience_keys(job: str) -> tuple[str, str, str]:
    """Stream, seen set and failures of one job."""
    return f"experience:{job}", f"experience:{job}:seen", f"experience:{job}:failed"


@dataclass(frozen=True)
class Entry:
    """A batch with its place in the stream."""

    id: str
    batch: ExperienceBatch


@dataclass(frozen=True)
class Failure:
    """Why a batch does not come.

    Attributes:
        reason: for people.
        mendable: the same request can succeed later, when policy, reward or the workers are mended.
    """

    reason: str
    mendable: bool


class ExperienceStream:
    """Push, read and acknowledge for one job."""

    def __init__(self, redis: Redis, job: str) -> None:
        """Args: redis, a client that returns bytes; job, the job's id."""
        self.redis, self.job = redis, job
        self.stream, self.seen_key, self.failed_key = experience_keys(job)
        self._push, self._fail = redis.register_script(_PUSH), redis.register_script(_FAIL)

    def push(self, batch: ExperienceBatch) -> bool:
        """Adds a batch unless its id was pushed before or the job has ended. True when it was added."""
        keys = [self.stream, self.seen_key, self.failed_key, f"job:{self.job}"]
        return cast(int, self._push(keys=keys, args=[batch.batch_id, pack(batch)])) == 1

    def seen(self, batch_ids: list[str]) -> set[str]:
        """Those of the ids that were pushed at any time."""
        if not batch_ids:
            return set()
        flags = cast(list[int], self.redis.smismember(self.seen_key, batch_ids))
        return {batch_id for batch_id, flag in zip(batch_ids, flags, strict=True) if flag}

    def pending(self) -> list[Entry]:
        """Entries that were read before and not acknowledged: what an earlier attempt left."""
        self._make_group()
        return self._read("0", None)

    def read(self, block_ms: int) -> list[Entry]:
        """New entries; waits at most block_ms for the first."""
        return self._read(">", block_ms)

    def acknowledge(self, entry_ids: list[str]) -> None:
        """Marks entries as done and deletes them."""
        if entry_ids:
            with self.redis.pipeline(transaction=True) as pipe:
                pipe.xack(self.stream, GROUP, *entry_ids)
                pipe.xdel(self.stream, *entry_ids)
                pipe.execute()

    def discard(self, entry_ids: dict[str, str]) -> None:
        """Deletes entries as if they had never been pushed. Args: entry_ids, of each batch id."""
        if entry_ids:
            with self.redis.pipeline(transaction=True) as pipe:
                pipe.xack(self.stream, GROUP, *entry_ids.values())
                pipe.xdel(self.stream, *entry_ids.values())
                pipe.srem(self.seen_key, *entry_ids)
                pipe.execute()

    def record_failure(self, batch_id: str, failure: Failure) -> None:
        """Tells the learner that this batch does not come; nothing happens when it is there or the job has ended."""
        keys = [self.failed_key, f"job:{self.job}", self.seen_key]
        self._fail(keys=keys, args=[batch_id, json.dumps(asdict(failure))])

    def failures(self, batch_ids: list[str]) -> dict[str, Failure]:
        """Why those of the ids that failed did."""
        if not batch_ids:
            return {}
        told = cast(list[bytes | None], self.redis.hmget(self.failed_key, batch_ids))
        return {i: Failure(**json.loads(each)) for i, each in zip(batch_ids, told, strict=True) if each is not None}

    def forget_failures(self, batch_ids: list[str]) -> None:
        """Takes back that batches failed: they are asked for again."""
        if batch_ids:
            self.redis.hdel(self.failed_key, *batch_ids)

    def _make_group(self) -> None:
        try:
            self.redis.xgroup_create(self.stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _read(self, position: str, block_ms: int | None) -> list[Entry]:
        answer = cast(
            list[Any], self.redis.xreadgroup(GROUP, CONSUMER, {self.stream: position}, count=1024, block=block_ms)
        )
        entries: list[Entry] = []
        for _, items in answer or []:
            for entry_id, fields in items:
                if not fields:
                    # Acknowledging deletes; an entry without fields was deleted but not yet acknowledged.
                    self.redis.xack(self.stream, GROUP, entry_id)
                    continue
                entries.append(Entry(entry_id.decode(), unpack(fields[b"batch"])))
        return entries
