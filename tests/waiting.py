"""Waiting for a service to be ready."""

import time
from typing import Protocol


class Gets(Protocol):
    def get(self, url: str) -> object: ...


def wait_ready(client: Gets, seconds: float = 300) -> None:
    """Returns once /ready says so. Raises AssertionError with what it said instead."""
    deadline = time.monotonic() + seconds
    while (answer := client.get("/ready")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.02)
