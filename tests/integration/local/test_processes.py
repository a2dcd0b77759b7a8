"""Real processes: started, watched, ended; whatever happens to the supervisor, none is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rlhf.local.processes import Program, ServiceFailed, Supervisor, launched, run_tool
from rlhf.local.signals import StopRequested, StopSignals
from tests.integration.local.supervised import service
from tests.integration.local.survivors import wait_until_gone


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    with StopSignals() as handlers:
        yield handlers


def supervise(folder: Path, manner: str = "polite") -> subprocess.Popen[bytes]:
    """Starts supervised.py and waits until both its services run."""
    command = [sys.executable, "-m", "tests.integration.local.supervised", str(folder), manner]
    # As from a terminal: under nohup SIGHUP is ignored and stays so, which the supervisor respects.
    process = subprocess.Popen(launched(command), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    deadline = time.monotonic() + 60
    while not (folder / "up").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def script(name: str, folder: Path, code: str, **options: float) -> Program:
    return Program(
        name=name,
        command=[sys.executable, "-c", code, str(folder)],
        environment=dict(os.environ),
        log=folder / f"{name}.log",
        probe=lambda: "never",
        **options,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stop_signal_ends_services_last_started_first(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = supervise(tmp_path)
    process.send_signal(number)
    assert process.wait(60) == code
    assert wait_until_gone(tmp_path, 10) == []
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


def test_an_impatient_second_ctrl_c_does_not_break_the_stop(tmp_path: Path) -> None:
    process = supervise(tmp_path, "stubborn")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    # The services ignore SIGTERM, and each has a child: both groups were killed.
    assert wait_until_gone(tmp_path, 10) == []


def test_a_killed_supervisor_takes_its_services_along(tmp_path: Path) -> None:
    # Without children of their own, as our services are: what the kernel ends here is the service itself.
    process = supervise(tmp_path, "childless")
    assert len(psutil.Process(process.pid).children()) == 2
    process.kill()
    process.wait()
    assert wait_until_gone(tmp_path, 30) == []
    assert not (tmp_path / "ended").exists()


def test_a_service_that_dies_is_named_with_exit_code_and_last_lines(tmp_path: Path, signals: StopSignals) -> None:
    code = "import sys; print('line one'); sys.exit('no such model: x')"
    with Supervisor(signals, print) as supervisor:
        supervisor.start([service("healthy", tmp_path, "polite"), script("policy", tmp_path, code)])
        with pytest.raises(ServiceFailed) as failure:
            supervisor.wait_ready()
    assert failure.value.service == "policy"
    assert "policy ended by itself with exit code 1" in str(failure.value)
    assert str(failure.value).endswith("  | line one\n  | no such model: x")
    assert wait_until_gone(tmp_path, 10) == []


def test_a_service_killed_from_outside_is_told_by_its_signal(tmp_path: Path, signals: StopSignals) -> None:
    with Supervisor(signals, print) as supervisor:
        supervisor.start([service("learner", tmp_path, "polite")])
        supervisor.wait_ready()
        os.kill(supervisor.pids["learner"], signal.SIGKILL)
        with pytest.raises(ServiceFailed, match="learner was ended by SIGKILL"):
            supervisor.blame(60)
    assert wait_until_gone(tmp_path, 10) == []


def test_a_service_that_never_gets_ready_is_named_with_its_reason(tmp_path: Path, signals: StopSignals) -> None:
    with Supervisor(signals, print) as supervisor:
        supervisor.start([script("reward", tmp_path, "import time; time.sleep(600)", ready_within=0.5)])
        with pytest.raises(ServiceFailed, match="reward is not ready after 1 s: never"):
            supervisor.wait_ready()
    assert wait_until_gone(tmp_path, 10) == []


def test_a_tool_is_run_to_its_end_and_killed_when_we_are_interrupted(tmp_path: Path, signals: StopSignals) -> None:
    assert run_tool([sys.executable, "-c", "print(1 + 1)"], os.environ, signals) == "2\n"
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run_tool([sys.executable, "-c", "import sys; sys.exit('bad')"], os.environ, signals)
    assert failure.value.output == "bad\n"
    interrupt = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGINT); time.sleep(600)"
    with pytest.raises(StopRequested):
        run_tool([sys.executable, "-c", interrupt, str(tmp_path)], os.environ, signals)
    assert wait_until_gone(tmp_path, 10) == []
