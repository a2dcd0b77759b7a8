"""A lease: the right to work on one thing, held only while its holder is alive. Not a lock that outlives a crash.

`lease:{name}` is set with NX and an expiry, holds a random token, is renewed by a heartbeat thread, and is released by
compare-and-delete. A holder that dies, hangs or loses Redis for longer than the expiry has lost it.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self, cast

from redis import Redis

from services.trainer.jobs.connection import REDIS_OUTAGES

log = logging.getLogger(__name__)

# The holder's own token may take it again: a retried task keeps its place between two tries.
_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class LeaseLost(Exception):
    """Another worker may hold the lease now: stop, and write nothing more."""


def lease_key(name: str) -> str:
    """The Redis key of a lease."""
    return f"lease:{name}"


def lease_held(redis: Redis, name: str) -> bool:
    """Whether any live worker holds it."""
    return bool(redis.exists(lease_key(name)))


def leases_held(redis: Redis, names: list[str]) -> set[str]:
    """Those names that a live worker holds, in one request."""
    if not names:
        return set()
    tokens = cast(list[bytes | None], redis.mget([lease_key(name) for name in names]))
    return {name for name, token in zip(names, tokens, strict=True) if token is not None}


class Lease:
    """A held lease; made by `acquire_lease`. Leaving the context releases it."""

    def __init__(self, redis: Redis, name: str, token: str, ttl_s: float, heartbeat_s: float) -> None:
        """Args: name, what is leased; token, this holder; ttl_s, life without renewal; heartbeat_s, its period."""
        self.redis, self.name, self.token = redis, name, token
        self._ttl_s, self._heartbeat_s = ttl_s, heartbeat_s
        self._lost: str | None = None
        self._left = False
        self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises LeaseLost unless the lease is certainly still held."""
        if self._lost is None and time.monotonic() - self._renewed > self._ttl_s:
            # The heartbeat thread itself may have been frozen, with the whole process.
            self._lost = f"it was not renewed for {self._ttl_s:g} s"
        if self._lost is not None:
            raise LeaseLost(f"lease {self.name} is lost: {self._lost}; another worker goes on from the last checkpoint")

    def release(self) -> None:
        """Gives the lease back; nothing happens when it was lost."""
        self._end_heartbeat()
        self.redis.register_script(_RELEASE)(keys=[lease_key(self.name)], args=[self.token])

    def leave(self, seconds: float) -> None:
        """Ends the heartbeat but keeps the lease for so long: for work that pauses and goes on under the same token."""
        self._left = True
        self._end_heartbeat()
        self._renew(seconds)

    def __enter__(self) -> Self:
        """The lease itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases unless left; an outage of Redis then is no error, since the lease expires by itself."""
        if self._left:
            return
        try:
            self.release()
        except REDIS_OUTAGES as outage:
            log.warning("lease not released, it will expire", extra={"lease": self.name, "error": str(outage)})

    def _renew(self, seconds: float) -> bool:
        args: list[str | int] = [self.token, int(seconds * 1000)]
        return bool(self.redis.register_script(_RENEW)(keys=[lease_key(self.name)], args=args))

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            # Taken before the call: Redis starts the new expiry no earlier than this.
            now = time.monotonic()
            try:
                held = self._renew(self._ttl_s)
            except REDIS_OUTAGES as error:
                log.warning("lease not renewed", extra={"lease": self.name, "error": str(error)})
                continue
            if not held:
                self._lost = "it expired or was taken over"
                log.warning("lease lost", extra={"lease": self.name})
                return
            self._renewed = now

    def _end_heartbeat(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)


def acquire_lease(redis: Redis, name: str, token: str, *, ttl_s: float, heartbeat_s: float) -> Lease | None:
    """Takes a lease, or None while another token holds it."""
    taken = redis.register_script(_ACQUIRE)(keys=[lease_key(name)], args=[token, int(ttl_s * 1000)])
    return Lease(redis, name, token, ttl_s, heartbeat_s) if taken else None
