"""`rlhf demo` for real, on a tiny model: interrupted, with a service killed, and to its end, always in one folder."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rlhf.demo.preset import PRESET
from rlhf.evaluation.readings import missing_keys
from rlhf.local.processes import launched
from tests.tiny_models import save_tiny_llama

WITHIN_S = 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a preset for it; the runs share runs/demo in it."""
    folder = tmp_path_factory.mktemp("demo")
    save_tiny_llama(folder / "tiny-llama")
    preset = json.loads(PRESET.read_text())
    preset["train_pairs"] = 40
    preset["evaluation"] |= {"prompts": 8, "samples_per_prompt": 2, "max_new_tokens": 12}
    preset["reward_model"] |= {"members": 2, "trunk_layers": 2, "epochs": 1}
    preset["ppo"]["rollout"] |= {"max_new_tokens": 12}
    preset["ppo"]["lora"] |= {"r": 4, "top_layers": 2}
    (folder / "preset.json").write_text(json.dumps(preset))
    return folder


class Demo:
    """A run of the demo whose output can be waited for."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.output = folder / "output"
        command = [sys.executable, "-m", "rlhf.cli", "demo", "--model", str(folder / "tiny-llama")]
        command += ["--config", str(folder / "preset.json"), "--out", str(folder / "runs" / "demo"), *options]
        with self.output.open("w") as output:
            # Through the launcher: it ends with this test run, also when that is killed.
            self.process = subprocess.Popen(launched(command), stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self) -> "Demo":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not re.search(pattern, self.output.read_text()):
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def services(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def end_in_the_middle_of_ppo(folder: Path, how: Callable[[Demo], None]) -> tuple[int, str]:
    """Runs many steps, does something after the second, and returns exit status and output; nothing must be left."""
    with Demo(folder, "--steps", "5000") as demo:
        demo.wait_for("step 2 of 5000")
        services = demo.services()
        assert len(services) == 6
        how(demo)
        status = demo.process.wait(120)
    assert psutil.wait_procs(services, timeout=0)[1] == []
    return status, demo.output.read_text()


def kill_the_learner(demo: Demo) -> None:
    (learner,) = [service for service in demo.services() if "learner" in service.cmdline()]
    learner.kill()


def test_ctrl_c_leaves_no_process(folder: Path) -> None:
    status, output = end_in_the_middle_of_ppo(folder, lambda demo: demo.process.send_signal(signal.SIGINT))
    assert status == 130
    assert "Traceback" not in output


def test_a_dead_service_ends_the_run_with_its_name_and_log(folder: Path) -> None:
    status, output = end_in_the_middle_of_ppo(folder, kill_the_learner)
    assert status == 1
    log = folder / "runs" / "demo" / "logs" / "learner.log"
    assert f"learner was ended by SIGKILL (out of memory, or killed by hand)\nlast lines of {log}:\n  | " in output
    assert "Traceback" not in output


def test_a_run_to_the_end_after_two_broken_ones_writes_a_complete_report(folder: Path) -> None:
    with Demo(folder, "--steps", "2", "--seed", "7") as demo:
        assert demo.process.wait(WITHIN_S) == 0, demo.output.read_text()
    out = folder / "runs" / "demo"
    report = json.loads((out / "report.json").read_text())
    assert missing_keys(report) == []
    assert report["ppo"]["steps"] == len(report["ppo"]["policy_loss"]) == 2
    # 2 steps of 16 prompts with 4 samples
    assert report["ppo"]["samples"] == 2 * 16 * 4
    assert report["reward_model"]["members"] == len(report["reward_model"]["accuracy_members"]) == 2
    # 8 prompts, each answered twice
    assert len(report["before"]["samples"]) == len(report["after"]["samples"]) == 16
    assert [s["prompt"] for s in report["before"]["samples"]] == [s["prompt"] for s in report["after"]["samples"]]
    assert report["win_rate"]["n"] == 8
    assert report["seeds"]["demo"] == 7
    names = {"redis", "policy", "reward", "trainer-api", "learner", "rollouts", "driver", "total"}
    assert set(report["peak_memory_mib"]) == names
    assert {"total", "weights", "start", "before", "reward_model", "ppo", "after"} <= set(report["durations_s"])
    assert "<html" in (out / "report.html").read_text()
    assert str(out / "logs") in demo.output.read_text()


def test_no_log_of_that_run_holds_a_warning_about_text_or_a_traceback(folder: Path) -> None:
    logs = {path.name: path.read_text() for path in (folder / "runs" / "demo" / "logs").iterdir()}
    assert set(logs) == {f"{n}.log" for n in ("redis", "policy", "reward", "trainer-api", "learner", "rollouts")}
    for name, text in logs.items():
        assert not re.search(r"Traceback|pad_token|padding|tokeniz|truncation|UserWarning|FutureWarning", text), name
    assert (folder / "runs" / "demo" / "redis" / "redis.conf").stat().st_mode & 0o077 == 0
