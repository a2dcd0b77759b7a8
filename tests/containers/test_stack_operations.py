"""The commands of docs/operations.md, as they stand there: back up, restore into an empty project, rotate the keys."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.containers.stack import ROOT, Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

BLOCK = re.compile(r"<!-- tested: operations -->\n```bash\n(.*?)```", re.DOTALL)


def test_a_backup_restores_an_empty_project_and_keys_change(
    stack: Stack, trainer: httpx.Client, reward_model: str, key: str
) -> None:
    back_up, restore, rotate = BLOCK.findall((ROOT / "docs" / "operations.md").read_text())
    known = {job["id"]: job["state"] for job in trainer.get("/jobs").json()}
    password = stack.secret("redis_password")
    try:
        for commands in (back_up, restore):
            stack.run("bash", "-euc", commands, timeout=900)
    finally:
        for archive in ("store.tar", "redis.tar", "console.tar"):
            (ROOT / archive).unlink(missing_ok=True)
    drawn = stack.secret("api_key")
    assert drawn != key
    with stack.client("trainer", key=drawn) as client:
        assert {job["id"]: job["state"] for job in client.get("/jobs").json()} == known

    shown = stack.run("bash", "-euc", rotate, timeout=900).stdout.strip().splitlines()[-1]
    assert shown not in (key, drawn)
    assert stack.secret("redis_password") != password
    with stack.client("trainer", key=drawn) as client:
        assert client.get("/jobs").status_code == 401
    with stack.client("trainer", key=shown) as client:
        assert {job["id"]: job["state"] for job in client.get("/jobs").json()} == known
    with stack.client("reward", key=shown) as client:
        body = {"samples": [{"prompt": "Say sky", "response": "sky."}], "model": reward_model}
        assert client.post("/reward", json=body).status_code == 200
