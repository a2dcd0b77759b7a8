import json
import os
import signal
import stat
from pathlib import Path

import pytest

from rlhf.local.processes import describe_exit, launched
from rlhf.local.signals import StopRequested, StopSignals
from rlhf.local.stack import Endpoints


def test_exits_are_told_in_words() -> None:
    assert describe_exit(0) == "ended by itself with exit code 0"
    assert describe_exit(-9) == "was ended by SIGKILL (out of memory, or killed by hand)"
    assert describe_exit(-11) == "was ended by SIGSEGV"


def test_the_launcher_is_told_who_must_be_alive() -> None:
    assert launched(["redis-server", "x"])[-3:] == [str(os.getpid()), "redis-server", "x"]


def test_the_first_stop_signal_raises_and_later_ones_do_not() -> None:
    with StopSignals() as signals:
        with pytest.raises(StopRequested) as stop:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert stop.value.exit_code == 128 + 15
    assert signals.requested is signal.SIGTERM


def raise_and_go_on(signals: StopSignals, done: list[str]) -> None:
    with signals.held():
        signal.raise_signal(signal.SIGINT)
        done.append("bookkeeping")
    done.append("never")


def test_a_held_signal_waits_for_the_end_of_the_block() -> None:
    done: list[str] = []
    with StopSignals() as signals, pytest.raises(StopRequested):
        raise_and_go_on(signals, done)
    assert done == ["bookkeeping"]


def test_a_silenced_signal_is_only_noted() -> None:
    with StopSignals() as signals:
        signals.silence()
        signal.raise_signal(signal.SIGHUP)
    assert signals.requested is signal.SIGHUP


def test_endpoints_are_for_the_owner_only_and_read_back(tmp_path: Path) -> None:
    endpoints = Endpoints("http://p", "http://r", "http://t", "redis://:pw@h:1/0", "key")
    path = tmp_path / "endpoints.json"
    endpoints.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(json.loads(path.read_text())) == ["policy", "reward", "trainer", "redis", "api_key", "console"]
    assert Endpoints.read(path) == endpoints
    assert "key" not in repr(endpoints).replace("api_key", "")
