"""`rlhf serve` for real, on a tiny model: what it starts, what it says, and that it leaves nothing behind."""

import signal
import stat
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.local.survivors import wait_until_gone
from tests.local_stack import START_WITHIN_S, output_of, serving, wait_for_endpoints
from tests.tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-llama")


def services_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(services: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(services, timeout=60)
    assert alive == []


def test_serve_survives_nothing_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "serve"

    # Killed with -9: the kernel ends the services. Its endpoints.json stays, and must not mislead the next run.
    with serving(tiny, folder) as process:
        wait_for_endpoints(process, folder)
        services = services_of(process)
        assert len(services) == 8  # Redis, four servers, three workers
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        assert_gone(services)
    assert (folder / "endpoints.json").exists()

    # The next run in the same folder works, tells where it is, and keeps its secrets out of every argument list.
    with serving(tiny, folder) as process:
        deadline = time.monotonic() + 60
        while (folder / "endpoints.json").exists():
            assert time.monotonic() < deadline
        endpoints = wait_for_endpoints(process, folder)
        assert stat.S_IMODE((folder / "endpoints.json").stat().st_mode) == 0o600
        for url in (endpoints.policy, endpoints.reward, endpoints.trainer, endpoints.console):
            assert httpx.get(f"{url}/ready").json() == {"status": "ready"}
        assert httpx.get(f"{endpoints.trainer}/jobs").status_code == 401
        assert "API key" in httpx.get(endpoints.console, follow_redirects=True).text, "its login form"
        key = {"Authorization": f"Bearer {endpoints.api_key}"}
        assert httpx.get(f"{endpoints.trainer}/jobs", headers=key).json() == []
        body = {"prompts": ["Hello"], "sampling": {"max_new_tokens": 3, "seed": 1}}
        answer = httpx.post(f"{endpoints.policy}/generate", headers=key, json=body, timeout=60)
        assert answer.json()["results"][0]["generated_tokens"] <= 3
        services = services_of(process)
        arguments = " ".join(part for service in services for part in service.cmdline())
        assert endpoints.api_key not in arguments
        assert endpoints.redis.split("@")[0].removeprefix("redis://:") not in arguments

        # A second one in the same folder is refused, and disturbs nothing.
        second = subprocess.run(process.args, capture_output=True, text=True, timeout=120, check=False)
        assert second.returncode == 1
        assert f"is in use by process {process.pid}" in second.stderr
        assert wait_for_endpoints(process, folder) == endpoints

        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert_gone(services)
    output = output_of(folder).read_text()
    assert endpoints.api_key in output
    assert output.splitlines()[-1] == "stopped"
    assert not (folder / "endpoints.json").exists()
    assert (folder / "console.sqlite3").exists(), "people and what they judged"
    for log in (folder / "logs").iterdir():
        assert "Traceback" not in log.read_text(), log


def test_serve_ends_with_its_terminal(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "serve"
    with serving(tiny, folder) as process:
        wait_for_endpoints(process, folder)
        services = services_of(process)
        process.send_signal(signal.SIGHUP)
        assert process.wait(120) == 0
        assert_gone(services)


def test_a_stop_during_the_start_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "serve"
    with serving(tiny, folder) as process:
        while not (folder / "logs" / "policy.log").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    assert wait_until_gone(folder, 10) == []


def test_a_model_that_does_not_exist_fails_with_the_service_and_its_log(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty", tmp_path / "serve") as process:
        assert process.wait(START_WITHIN_S) == 1
    output = output_of(tmp_path / "serve").read_text()
    assert "ended by itself with exit code" in output
    assert f"last lines of {tmp_path / 'serve' / 'logs'}" in output
    assert not (tmp_path / "serve" / "endpoints.json").exists()
