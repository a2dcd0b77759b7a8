"""A fresh clone's stack with SmolLM2, and every command that the documents show for it, run as it stands there."""

from __future__ import annotations

import re

import pytest

from tests.containers.conftest import StartStack
from tests.containers.stack import ROOT, Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

DOCUMENTS = ("README.md", "docs/containers.md")
TESTED_BLOCK = re.compile(r"<!-- tested: containers -->\n```bash\n(.*?)```", re.DOTALL)
DOCUMENTED_PORTS = {"policy": 8001, "reward": 8002, "trainer": 8003, "console": 8004}
# A document need not show what happens on an error; here every error ends the script.
PREFACE = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'


@pytest.fixture(scope="module")
def stack(start_stack: StartStack) -> Stack:
    return start_stack("documented", {})


def script(document: str, stack: Stack) -> str:
    """The marked blocks of a document, in order, on this stack's ports."""
    path = ROOT / document
    text = "".join(TESTED_BLOCK.findall(path.read_text())) if path.exists() else ""
    for service, port in DOCUMENTED_PORTS.items():
        text = text.replace(f"localhost:{port}", f"127.0.0.1:{stack.ports[service]}")
    return text


def test_documented_commands_work(stack: Stack) -> None:
    scripts = {document: script(document, stack) for document in DOCUMENTS}
    assert any(scripts.values()), f"no block in {DOCUMENTS} is marked <!-- tested: containers -->"
    for document, commands in scripts.items():
        print(document, stack.run("bash", "-c", PREFACE + commands, timeout=600).stdout)
    with stack.client("trainer", key=stack.secret("api_key")) as trainer:
        jobs = trainer.get("/jobs").json()
    assert {job["kind"] for job in jobs} == {"ppo", "reward_model"}
    assert {job["state"] for job in jobs} == {"succeeded"}, jobs
