"""Connections to Redis, made one way: bounded waits, retries over short outages, bytes in and out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis import TimeoutError as RedisTimeoutError
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from rlhf.contracts.errors import Unavailable
from services.trainer.settings import TrainerSettings

_OUTAGES = (RedisConnectionError, RedisTimeoutError)
REDIS_OUTAGES = (*_OUTAGES, OperationalError)
"""What redis-py raises when the server cannot be reached, and Celery when it sends a message; not what a wrong command
raises."""

WORKER_RETRIES = 12
SOCKET_TIMEOUT_S = 10.0
BLOCK_MS = 1000
"""Longest blocking read: far below the socket's timeout, and short enough to notice that a job was stopped."""


def connect(settings: TrainerSettings, *, retries: int = 4) -> Redis:
    """A pooled, thread-safe client.

    Args:
        settings: where Redis is.
        retries: of a command before its outage is raised: 4 take 1.5 s, enough for a request that someone waits for;
            12 take 10 s, enough for work to survive a restart of Redis and little enough to keep a lease.
    """
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        protocol=2,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=5.0,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), retries),
        retry_on_error=list(_OUTAGES),
    )


@contextmanager
def outages_are_unavailable() -> Iterator[None]:
    """Turns an outage of Redis into the error that HTTP callers know.

    Raises:
        Unavailable: Redis cannot be reached.
    """
    try:
        yield
    except REDIS_OUTAGES as error:
        raise Unavailable(
            f"Redis cannot be reached ({type(error).__name__}); try again, or check RLHF_REDIS_URL", retry_after=2
        ) from error
