"""Calls under a hard limit."""

import threading

import pytest

from services.trainer.rollouts.limit import LimitExceeded, StoppedEarly, run_limited


def test_result_and_error_come_through() -> None:
    def fail() -> int:
        raise KeyError("x")

    assert run_limited(lambda: 3, 10, threading.Event(), 10) == 3
    with pytest.raises(KeyError):
        run_limited(fail, 10, threading.Event(), 10)


def test_a_call_that_takes_too_long_is_abandoned() -> None:
    release = threading.Event()
    with pytest.raises(LimitExceeded, match=r"0\.1 s"):
        run_limited(release.wait, 0.1, threading.Event(), 10)
    release.set()


def test_a_stop_leaves_the_call_its_grace() -> None:
    stopping, release = threading.Event(), threading.Event()
    stopping.set()
    with pytest.raises(StoppedEarly):
        run_limited(release.wait, 60, stopping, 0.1)
    release.set()
    assert run_limited(lambda: 3, 60, stopping, 10) == 3
