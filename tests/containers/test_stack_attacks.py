"""What must be refused by the stack as it stands, through its doors: each request is one that could do harm."""

from __future__ import annotations

import http.client
import json
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.containers.stack import HTTP_SERVICES, OWN_IMAGES, Stack, ppo_job

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

WORK = {"policy": "/generate", "reward": "/reward", "trainer": "/jobs"}
NAMES = ("../../secrets@1", "/etc/passwd@1", "..%2f..%2fsecrets@1", "http://front:8001/rm@1", "https://example.org/rm")
LIMIT = {"policy": 32 * 2**20, "reward": 32 * 2**20, "trainer": 128 * 2**20}


def refused(answer: httpx.Response, status: int, kind: str) -> None:
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind), answer.text


@pytest.mark.parametrize("service", HTTP_SERVICES)
def test_the_key_counts_in_its_header_alone(stack: Stack, service: str, key: str) -> None:
    with stack.client(service, key=None) as client:
        for query in ("api_key", "key", "token", "access_token", "authorization"):
            refused(client.post(WORK[service], json={}, params={query: key}), 401, "unauthorized")
        refused(client.post(WORK[service], json={}, headers={"Cookie": f"api_key={key}"}), 401, "unauthorized")
        refused(client.post(WORK[service], json={}, headers={"Authorization": f"Basic {key}"}), 401, "unauthorized")
        refused(
            client.post(WORK[service], json={}, headers={"Authorization": f"Bearer {key[:-1]}"}), 401, "unauthorized"
        )
        # Another spelling of an open path opens nothing.
        for path in (f"/health/..{WORK[service]}", f"//{WORK[service]}", "/metrics/../docs"):
            assert client.post(path, json={}).status_code == 401


@pytest.mark.parametrize("service", HTTP_SERVICES)
def test_a_body_over_the_limit_is_refused_before_it_is_read(stack: Stack, service: str, key: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports[service], timeout=60)
    connection.putrequest("POST", WORK[service])
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Length", str(LIMIT[service] + 1))
    connection.endheaders()  # and not a byte of the body
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error_type"]) == (413, "too_large")
    connection.close()


def test_a_body_without_a_length_is_cut_off_at_the_limit(stack: Stack, key: str) -> None:
    def endless() -> Any:
        for _ in range(LIMIT["policy"] // 2**20 + 8):
            yield b" " * 2**20

    with stack.client("policy", key=key) as client:
        with suppress(httpx.WriteError):  # it may answer and hang up while we are still sending
            refused(client.post("/generate", content=endless()), 413, "too_large")
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_paths_and_no_addresses(
    policy: httpx.Client, reward: httpx.Client, trainer: httpx.Client, name: str
) -> None:
    refused(policy.post("/generate", json={"prompts": ["Hi"], "adapter": name}), 422, "validation")
    tgi = {"inputs": "Hi", "parameters": {"adapter_id": name}}
    refused(policy.post("/generate", json=tgi), 422, "validation")
    sample = {"prompt": "Hi", "response": "Ho"}
    refused(reward.post("/reward", json={"samples": [sample], "model": name}), 422, "validation")
    refused(trainer.post("/jobs", json=ppo_job(name, steps=1)), 422, "validation")


def test_no_file_outside_a_job_is_given_out(trainer: httpx.Client, reward_model: str) -> None:
    job = reward_model.partition("@")[0]
    assert trainer.get(f"/jobs/{job}/artifacts/config.json").status_code == 200
    for path in ("../../../secrets/api_key", "/secrets/api_key", "adapters/../../../secrets/api_key"):
        for spelled in (path, path.replace("/", "%2f"), path.replace(".", "%2e").replace("/", "%2F")):
            answer = trainer.get(f"/jobs/{job}/artifacts/{spelled}")
            assert answer.status_code in (404, 405), (spelled, answer.text[:200])
    assert trainer.get("/jobs/..%2f..%2fsecrets%2fapi_key").status_code == 404


def test_a_bundle_that_is_a_pickle_is_not_loaded(stack: Stack, reward: httpx.Client, reward_model: str) -> None:
    """Beside a sound bundle with a manifest that fits, and in place of its tensors: nothing ever unpickles."""
    script = """
import pickle, shutil, sys
from pathlib import Path
from rlhf.artifacts.folders import write_manifest
class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/unpickled"),))
root, name = Path("/store/reward_models"), sys.argv[1]
for evil, file in (("pickle-beside", "ensemble.bin"), ("pickle-inside", "ensemble.safetensors")):
    shutil.copytree(root / name / "1", root / evil / "1", dirs_exist_ok=True)
    (root / evil / "1" / "ensemble.safetensors").unlink()
    (root / evil / "1" / file).write_bytes(pickle.dumps(Evil()))
    write_manifest(root / evil / "1")
"""
    stack.execute("trainer-api", "python", "-c", script, reward_model.partition("@")[0])
    for evil in ("pickle-beside@1", "pickle-inside@1"):
        body = {"samples": [{"prompt": "Hi", "response": "Ho"}], "model": evil}
        refused(reward.post("/reward", json=body), 409, "conflict")
    assert stack.execute("reward", "ls", "/tmp/unpickled", check=False).returncode != 0


def test_redis_answers_nobody_without_the_password(stack: Stack) -> None:
    # From a container that can reach it, and whose own password file is not used here.
    ask = (
        "import socket\nfor words in (b'PING', b'KEYS *', b'AUTH wrong', b'CONFIG GET requirepass'):\n"
        "    s = socket.create_connection(('redis', 6379), timeout=5); s.sendall(words + b'\\r\\n'); print(s.recv(200))"
    )
    answers = stack.execute("rollout", "python", "-c", ask).stdout.splitlines()
    assert len(answers) == 4
    assert all(answer.startswith(("b'-NOAUTH", "b'-WRONGPASS")) for answer in answers), answers


def test_images_hold_no_secret_no_tool_and_little_else(stack: Stack, key: str) -> None:
    password = stack.secret("redis_password")
    for image in sorted(set(OWN_IMAGES) - {"demo", "postgres"}):  # no part of this stack
        name = f"rlhf-services/{image}:{stack.name}"
        history = stack.run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", name).stdout
        (facts,) = json.loads(stack.run("docker", "image", "inspect", name).stdout)
        for secret in (key, password):
            assert secret not in history + json.dumps(facts)
        values = [
            value for value in facts["Config"]["Env"] if "KEY" in value or "PASSWORD" in value or "SECRET" in value
        ]
        assert values == []
        assert facts["Config"]["User"] == "10001:10001"
        assert facts["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
        if image in ("trainer-api", "console"):
            assert facts["Size"] < 250e6
    names = ("pip", "torch", "transformers", "rouge_score")
    look = f"import importlib.util as u; print(*[n for n in {names} if u.find_spec(n)])"
    ours = {"trainer-api": "", "console": "", "evaluation": "rouge_score", "policy": "torch transformers"}
    for service, expected in (ours | {"learner": ours["policy"]}).items():
        assert stack.execute(service, "/venv/bin/python", "-c", look).stdout.strip() == expected
