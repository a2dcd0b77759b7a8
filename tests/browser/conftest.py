"""The whole system on a tiny model, with what one finished PPO job left, and Debian's Chromium before it.

Package-wide, so that Playwright's event loop is gone when other tests begin.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect, sync_playwright
from pydantic import TypeAdapter

from rlhf.clients.trainer import TrainerClient
from rlhf.contracts.jobs import JobConfig, JobState
from tests.browser.judging import Judged, make_judged
from tests.browser.visits import Site, Visits, log_in
from tests.local_stack import serving, wait_for_endpoints
from tests.tiny_models import save_tiny_llama

CHROMIUM = shutil.which("chromium")
"""Debian's. Playwright's own download is never used."""
PATIENCE_MS = 60_000
"""For what a page is to show, on a machine that has other work."""
WORDS = ("sky", "sea", "sun", "ice", "oak", "owl", "fox", "bee")
REWARD_MODEL = {
    "kind": "reward_model",
    "pairs": [{"prompt": f"Say {word}", "chosen": f"{word}.", "rejected": f"{word} {word} {word}"} for word in WORDS],
    "members": 2,
    "trunk_layers": 2,
    "lora_r": 2,
    "epochs": 1,
    "max_length": 128,
}
PPO = {
    "kind": "ppo",
    "prompts": ["Say sky", "Say sea"],
    "steps": 3,
    "rollout": {"prompts_per_step": 2, "samples_per_prompt": 2, "max_new_tokens": 8},
    "update": {"epochs": 1, "minibatches": 1},
    "lora": {"r": 2, "alpha": 4},
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skips without a browser. Not in a fixture: from here pytest tells it in one line for all tests."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH; on Debian: apt-get install chromium (`make test` does so as root)")


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("stack")
    with serving(save_tiny_llama(folder / "tiny-llama"), folder / "serve") as process:
        endpoints = wait_for_endpoints(process, folder / "serve")
        with TrainerClient(endpoints.trainer, endpoints.api_key) as trainer:
            reward_model = f"{finish(trainer, REWARD_MODEL)}@1"
            job = finish(trainer, PPO | {"reward_model": reward_model})
        yield Site(endpoints.console, endpoints.api_key, reward_model, job, f"{job}@{PPO['steps']}")


def finish(trainer: TrainerClient, config: dict[str, Any]) -> str:
    """A job's id, once it has succeeded."""
    job = trainer.submit(TypeAdapter(JobConfig).validate_python(config))
    deadline = time.monotonic() + 300
    while not job.state.final:
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
        job = trainer.job(job.id)
    assert job.state is JobState.SUCCEEDED, job.reason
    return job.id


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
        yield browser


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that screenshots are written to."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="package")
def login(browser: Browser, site: Site) -> StorageState:
    """The cookies of a login that no test ends."""
    with Visits(browser, site.url).open() as page:
        log_in(page, site.key)
        return page.context.storage_state()


@pytest.fixture
def visits(browser: Browser, site: Site, login: StorageState) -> Visits:
    """Opens pages, signed in."""
    return Visits(browser, site.url, login)


@pytest.fixture(scope="package")
def judged(browser: Browser, site: Site, login: StorageState) -> Judged:
    visits = Visits(browser, site.url, login)
    with visits.open() as admin:
        return make_judged(admin, visits)


@pytest.fixture
def page(visits: Visits) -> Iterator[Page]:
    """One page on a wide screen, signed in."""
    with visits.open() as page:
        yield page
