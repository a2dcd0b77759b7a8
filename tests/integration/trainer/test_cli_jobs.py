"""`rlhf jobs` against the real API process and a real learner worker."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf import cli
from tests.integration.trainer.conftest import ApiProcess, Worker, wait_for

Start = Callable[..., Worker]


@pytest.fixture
def jobs(api_process: ApiProcess, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `rlhf jobs ...`; gives its exit status and everything it printed."""

    def run(command: str, *arguments: str) -> tuple[int, str]:
        code = cli.main(["jobs", command, *arguments, "--url", api_process.url])
        printed = capsys.readouterr()
        return code, (printed.out + printed.err).strip()

    return run


def job_file(folder: Path, what: str, steps: int) -> str:
    file = folder / f"{what}.json"
    file.write_text(json.dumps({"kind": "ppo", "prompts": [what], "reward_model": "rm@1", "steps": steps}))
    return str(file)


def test_a_job_is_paused_resumed_and_watched_to_its_end(
    jobs: Callable[..., tuple[int, str]], start: Start, tmp_path: Path
) -> None:
    _, job = jobs("submit", job_file(tmp_path, "count", 3), "--priority", "-2")
    assert jobs("pause", job) == (0, "paused")
    listed = jobs("list", "--state", "paused", "--kind", "ppo")[1]
    assert "paused by request" in listed
    assert "priority -2" in listed
    assert jobs("list", "--kind", "reward_model") == (0, "")
    assert jobs("resume", job) == (0, "queued")
    start("learner").ready()
    code, printed = jobs("watch", job)
    assert code == 0
    assert "step 1 of 3: step_squared 1" in printed
    assert printed.endswith(f"job {job} succeeded after 3 steps")
    code, printed = jobs("pause", job)
    assert code == 1
    assert "succeeded; it cannot be paused" in printed


def test_watching_a_job_that_fails_says_why(jobs: Callable[..., tuple[int, str]], start: Start, tmp_path: Path) -> None:
    start("learner").ready()
    _, job = jobs("submit", job_file(tmp_path, "fail", 3))
    code, printed = jobs("watch", job)
    assert code == 1
    assert "warning: on purpose" in printed
    assert printed.endswith(f"rlhf: job {job} (ppo) failed: ValueError: broken on purpose")


def test_ctrl_c_ends_the_watching_and_not_the_job(
    jobs: Callable[..., tuple[int, str]], api_process: ApiProcess, start: Start, tmp_path: Path
) -> None:
    start("learner").ready()
    _, job = jobs("submit", job_file(tmp_path, "count", 10_000))
    command = [sys.executable, "-m", "rlhf.cli", "jobs", "watch", job, "--url", api_process.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        wait_for(lambda: "step" in watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
    assert '"state": "running"' in jobs("show", job)[1]
    jobs("cancel", job)


def test_an_ended_job_is_reported_by_its_stack_and_by_its_folder_alike(
    jobs: Callable[..., tuple[int, str]],
    api_process: ApiProcess,
    start: Start,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = start("learner").ready()
    _, job = jobs("submit", job_file(tmp_path, "fail", 3))
    jobs("watch", job)
    assert worker.stop() == 0, "it has written what it keeps of the job"
    page = tmp_path / "stack.html"
    assert cli.main(["report", job, "--url", api_process.url, "-o", str(page)]) == 0
    assert "ValueError: broken on purpose" in page.read_text()
    assert "about_to_fail" in page.read_text(), "a warning"
    folder = next(tmp_path.rglob(f"jobs/{job}"))
    assert cli.main(["report", "--from", str(folder)]) == 0
    assert (folder / "report.html").read_text() == page.read_text()
    capsys.readouterr()
    assert cli.main(["report", "ppo-00000000", "--url", api_process.url]) == 1
    assert "job 'ppo-00000000' does not exist" in capsys.readouterr().err
