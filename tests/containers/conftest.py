"""A Docker engine that answers, and projects that begin and end with nothing left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.containers.stack import WITH_MONITORS, Stack, ppo_job, submit, wait_for_job
from tests.tiny_models import save_tiny_llama

StartStack = Callable[[str, Mapping[str, str]], Stack]
WORDS = ("sky", "sea", "sun", "ice", "oak", "owl", "fox", "bee")
PAIRS = [{"prompt": f"Say {word}", "chosen": f"{word}.", "rejected": f"{word} {word} {word}"} for word in WORDS]
REWARD_MODEL = {
    "kind": "reward_model",
    "pairs": PAIRS,
    "members": 2,
    "trunk_layers": 2,
    "lora_r": 2,
    "epochs": 1,
    "max_length": 128,
}


@pytest.fixture(scope="session")
def engine() -> None:
    """Fails, rather than skips: whoever runs these tests wants them run."""
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True)
    if answer.returncode != 0:
        pytest.fail(f"no Docker engine answers; start one ({answer.stderr.strip()[-300:]})", pytrace=False)


@contextmanager
def started(name: str, settings: Mapping[str, str], *services: str) -> Iterator[Stack]:
    """Brings up a project, or some of its services and what they need; nothing remains of it."""
    stack = Stack(f"rlhf-{name}-{os.getpid()}", settings)
    try:
        stack.down()
        stack.up(*services)
        yield stack
    finally:
        stack.down()
        stack.remove_images()


@pytest.fixture(scope="module")
def start_stack(engine: None) -> Iterator[StartStack]:
    """Brings up a project; all of it is removed at the end of the module."""
    with ExitStack() as undo:
        yield lambda name, settings: undo.enter_context(started(name, settings))


@pytest.fixture(scope="session")
def stack(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with a tiny model and its monitors, for all modules that want no other."""
    models = tmp_path_factory.mktemp("models")
    save_tiny_llama(models / "tiny")
    for path in (models, *models.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    settings = {
        "RLHF_MODELS": str(models),
        "RLHF_MODEL": "/models/tiny",
        "RLHF_THREADS": "1",
        "COMPOSE_FILE": WITH_MONITORS,
    }
    with started("tiny", settings) as stack:
        yield stack


@pytest.fixture(scope="session")
def key(stack: Stack) -> str:
    return stack.secret("api_key")


@pytest.fixture(scope="session")
def policy(stack: Stack, key: str) -> Iterator[httpx.Client]:
    with stack.client("policy", key=key) as client:
        yield client


@pytest.fixture(scope="session")
def reward(stack: Stack, key: str) -> Iterator[httpx.Client]:
    with stack.client("reward", key=key) as client:
        yield client


@pytest.fixture(scope="session")
def trainer(stack: Stack, key: str) -> Iterator[httpx.Client]:
    with stack.client("trainer", key=key) as client:
        yield client


@pytest.fixture(scope="session")
def reward_model(trainer: httpx.Client) -> str:
    """A reward model that the stack trained."""
    job = submit(trainer, REWARD_MODEL)
    wait_for_job(trainer, job)
    return f"{job}@1"


@pytest.fixture(scope="session")
def adapter(trainer: httpx.Client, reward_model: str) -> str:
    """What two steps of PPO made of the policy."""
    job = submit(trainer, ppo_job(reward_model, steps=2))
    wait_for_job(trainer, job)
    return f"{job}@2"
