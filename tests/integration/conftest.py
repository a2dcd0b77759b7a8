"""A real Redis for the whole run, emptied for each test."""

from collections.abc import Iterator

import pytest
import redis

from rlhf.local.redis import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Its URL, with an empty database behind it."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """Bytes in and out, as the services use it."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client
