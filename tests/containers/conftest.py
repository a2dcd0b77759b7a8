"""A Docker engine that answers, and projects that begin and end with nothing left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.containers.stack import Stack

StartStack = Callable[[str, Mapping[str, str]], Stack]


@pytest.fixture(scope="session")
def engine() -> None:
    """Fails, rather than skips: whoever runs these tests wants them run."""
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True)
    if answer.returncode != 0:
        pytest.fail(f"no Docker engine answers; start one ({answer.stderr.strip()[-300:]})", pytrace=False)


@pytest.fixture(scope="module")
def start_stack(engine: None) -> Iterator[StartStack]:
    """Brings up a project; all of it is removed at the end of the module."""
    stacks: list[Stack] = []

    def start(name: str, settings: Mapping[str, str]) -> Stack:
        stack = Stack(f"rlhf-{name}-{os.getpid()}", settings)
        stacks.append(stack)
        stack.down()
        stack.up()
        return stack

    yield start
    for stack in stacks:
        stack.down()
        stack.remove_images()
