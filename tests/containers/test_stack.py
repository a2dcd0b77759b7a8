"""The Compose stack with a tiny model: what it answers, that it trains, survives a crash, and is locked down."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from rlhf.evaluation.readings import missing_keys
from tests.containers.stack import HTTP_SERVICES, LONG_RUNNING, MONITORS, ROOT, Stack, ppo_job, submit, wait_for_job

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]


def test_generates_in_the_native_dialect(policy: httpx.Client) -> None:
    body = {
        "prompts": ["Say sky", [{"role": "user", "content": "Say sea"}]],
        "sampling": {"max_new_tokens": 6, "seed": 1, "n": 2},
        "return": {"token_ids": True, "logprobs": True},
    }
    results = policy.post("/generate", json=body).raise_for_status().json()["results"]
    assert len(results) == 4  # 2 prompts x 2 samples
    assert all(len(r["behavior_logprobs"]) == len(r["token_ids"]) <= 6 for r in results)
    again = policy.post("/generate", json=body).raise_for_status().json()["results"]
    assert [r["text"] for r in again] == [r["text"] for r in results]


def test_generates_in_the_dialect_of_tgi(policy: httpx.Client) -> None:
    body = {"inputs": "Say sky", "parameters": {"max_new_tokens": 6, "details": True, "seed": 1}}
    answer = policy.post("/generate", json=body).raise_for_status().json()
    assert isinstance(answer["generated_text"], str)
    assert answer["details"]["generated_tokens"] <= 6


@pytest.mark.parametrize("service", HTTP_SERVICES)
@pytest.mark.parametrize("wrong", [None, "wrong"])
def test_refuses_requests_without_the_key(stack: Stack, service: str, wrong: str | None) -> None:
    path = {"policy": "/generate", "reward": "/reward", "trainer": "/jobs"}[service]
    with stack.client(service, key=wrong) as client:
        answer = client.post(path, json={})
        assert (answer.status_code, answer.json()["error_type"]) == (401, "unauthorized")
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 200
        assert "rlhf_http_requests_total" in client.get("/metrics").text


def test_trains_a_reward_model_and_scores_with_it(reward: httpx.Client, reward_model: str) -> None:
    samples = [{"prompt": "Say sky", "response": text} for text in ("sky.", "sky sky sky")]
    body = reward.post("/reward", json={"samples": samples, "model": reward_model}).raise_for_status().json()
    assert body["model"] == reward_model
    assert [len(result["members"]) for result in body["results"]] == [2, 2]


def test_trains_the_policy_and_serves_what_it_learned(
    trainer: httpx.Client, policy: httpx.Client, adapter: str
) -> None:
    job = adapter.partition("@")[0]
    status = trainer.get(f"/jobs/{job}").raise_for_status().json()
    assert (status["step"], status["attempts"]) == (2, 1)
    assert [row["step"] for row in trainer.get(f"/jobs/{job}/metrics").json()["rows"]] == [1, 2]
    body = {"prompts": ["Say sky"], "adapter": adapter, "sampling": {"max_new_tokens": 6, "seed": 1}}
    answer = policy.post("/generate", json=body).raise_for_status().json()
    assert (answer["adapter"], answer["policy_version"]) == (adapter, 2)


def test_evaluates_what_it_learned_with_the_packages_of_the_metrics(
    trainer: httpx.Client, adapter: str, reward_model: str
) -> None:
    responses = {
        "prompts": [{"prompt": f"Say {word}", "references": [f"{word}."]} for word in ("sky", "sea")],
        "sampling": {"max_new_tokens": 6},
        "metrics": [{"kind": "rouge", "name": "rouge_l"}],
    }
    config = {"kind": "evaluation", "adapter": adapter, "reward_model": reward_model, "responses": responses}
    job = submit(trainer, config)
    wait_for_job(trainer, job)
    report = trainer.get(f"/jobs/{job}/artifacts/evaluation.json").raise_for_status().json()
    assert set(report["responses"]["win_rate"]) == {"reward", "rouge_l"}


def test_a_job_survives_the_death_of_its_learner_and_of_the_policy(
    stack: Stack, trainer: httpx.Client, reward_model: str
) -> None:
    # So many steps that both blows fall long before the last one.
    job = submit(trainer, ppo_job(reward_model, steps=60))
    before = {service: stack.inspect(service)["RestartCount"] for service in ("learner", "policy")}
    wait_for_job(trainer, job, lambda status: status["step"] >= 2)
    stack.crash("learner")
    resumed = wait_for_job(trainer, job, lambda status: status["attempts"] == 2 and status["state"] == "running")
    wait_for_job(trainer, job, lambda status: status["step"] > resumed["step"])
    stack.crash("policy")
    status = wait_for_job(trainer, job)
    after = {service: stack.inspect(service)["RestartCount"] for service in before}
    assert after == {service: count + 1 for service, count in before.items()}
    assert (status["step"], status["attempts"]) == (60, 2)
    assert [row["step"] for row in trainer.get(f"/jobs/{job}/metrics").json()["rows"]] == list(range(1, 61))


@pytest.mark.parametrize("service", [*LONG_RUNNING, *MONITORS])
def test_containers_are_locked_down(stack: Stack, service: str) -> None:
    container = stack.inspect(service)
    host = container["HostConfig"]
    assert (host["ReadonlyRootfs"], host["Init"], host["Privileged"]) == (True, True, False)
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None)
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert min(host["Memory"], host["PidsLimit"]) > 0
    look = "cat /proc/self/status; for f in / /app /usr/bin /venv; do touch $f/x 2>/dev/null && echo written: $f; done"
    status = stack.execute(service, "sh", "-c", f"{look}; true").stdout
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = "999" if service == "redis" else "10001"
    assert facts["Uid"].split() == [uid] * 4
    assert int(facts["CapEff"], 16) == 0
    assert facts["NoNewPrivs"].strip() == "1"
    assert "written" not in status
    # Published to this machine alone, and Redis not at all.
    published = [b["HostIp"] for bindings in container["NetworkSettings"]["Ports"].values() for b in bindings or []]
    assert published == ["127.0.0.1"] * {"front": 4, "prometheus": 1, "flower": 1}.get(service, 0)


def test_redis_wants_its_password_and_shows_itself_to_its_clients_alone(stack: Stack) -> None:
    refused = stack.execute("redis", "redis-cli", "ping", check=False).stdout
    assert "NOAUTH" in refused
    assert stack.execute("redis", "cat", "/secrets/api_key", check=False).returncode != 0
    look = "import socket; socket.create_connection(('redis', 6379), timeout=3)"
    assert stack.execute("trainer-api", "python", "-c", look, check=False).returncode == 0
    for outsider in ("policy", "reward"):
        assert stack.execute(outsider, "python", "-c", look, check=False).returncode != 0
    ask = 'REDISCLI_AUTH="$(cat /secrets/redis_password)" redis-cli config get appendonly appendfsync maxmemory-policy'
    lines = stack.execute("redis", "sh", "-c", ask).stdout.split()
    seen = dict(zip(lines[::2], lines[1::2], strict=True))
    assert (seen["appendonly"], seen["appendfsync"], seen["maxmemory-policy"]) == ("yes", "everysec", "noeviction")


def test_secrets_and_warnings_are_in_no_log(stack: Stack, key: str) -> None:
    password = stack.secret("redis_password")
    for service in (*LONG_RUNNING, *MONITORS, "secrets", "weights"):
        shown = json.dumps(stack.inspect(service))
        lines = stack.logs(service)
        for secret in (key, password):
            assert secret not in shown
            assert not [line for line in lines if secret in line]
        if service in ("redis", "front", *MONITORS):
            continue
        records = [json.loads(line) for line in lines]  # every line is a JSON object
        foreign = ("py.warnings", "transformers", "tokenizers", "torch", "peft", "huggingface_hub")
        assert not [r for r in records if r["logger"].startswith(foreign) and r["level"] in ("warning", "error")]


def test_more_replicas_stand_behind_the_same_doors(stack: Stack, policy: httpx.Client) -> None:
    # As operations.md has it; --no-recreate leaves alone those that run.
    stack.up("--no-recreate", "--scale", "rollout=4", "--scale", "policy=2")
    assert (len(stack.containers("rollout")), len(stack.containers("policy"))) == (4, 2)
    count = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())"

    def asked() -> list[float]:
        pages = [stack.compose("exec", "-T", "--index", str(i), "policy", "python", "-c", count).stdout for i in (1, 2)]
        return [float(re.search(r"^tgi_request_count_total (\S+)", page, re.MULTILINE)[1]) for page in pages]

    before, body = asked(), {"prompts": ["Say sky"], "sampling": {"max_new_tokens": 2}}
    deadline = time.monotonic() + 60  # the door looks for replicas every few seconds
    while not all(now > then for now, then in zip(asked(), before, strict=True)):
        assert time.monotonic() < deadline
        assert [policy.post("/generate", json=body).status_code for _ in range(4)] == [200] * 4
    stack.up("--no-recreate", "--scale", "rollout=1", "--scale", "policy=1")


def test_the_demo_runs_against_the_stack(stack: Stack, tmp_path: Path) -> None:
    preset = json.loads((ROOT / "configs" / "demo.json").read_text())
    preset["train_pairs"] = 40
    preset["evaluation"] |= {"prompts": 4, "samples_per_prompt": 1, "max_new_tokens": 8}
    preset["reward_model"] |= {"members": 2, "trunk_layers": 2, "epochs": 1}
    preset["ppo"]["rollout"] |= {"prompts_per_step": 4, "samples_per_prompt": 2, "max_new_tokens": 8}
    preset["ppo"]["lora"] |= {"r": 4, "top_layers": 2}
    (tmp_path / "preset.json").write_text(json.dumps(preset))
    mount = f"{tmp_path / 'preset.json'}:/preset.json:ro"
    run = ("run", "--rm", "-T")
    done = stack.compose(*run, "--build", "-v", mount, "demo", "--config", "/preset.json", "--steps", "2", timeout=600)
    assert "report         /runs/demo/report.html and /runs/demo/report.json" in done.stdout
    read = (*run, "--no-deps", "--entrypoint", "cat", "demo", "/runs/demo/report.json")
    report = json.loads(stack.compose(*read).stdout)
    assert missing_keys(report) == ["peak_memory_mib"]  # of processes in other containers
    assert (report["ppo"]["steps"], report["versions"]["model"]) == (2, "tiny")


def test_stops_cleanly_and_comes_back_with_its_data(
    stack: Stack, trainer: httpx.Client, policy: httpx.Client, reward: httpx.Client, reward_model: str
) -> None:
    known = {job["id"]: job["state"] for job in trainer.get("/jobs").json()}
    # A long grace: whether it stops cleanly is asked here, not how busy the machine is.
    stack.compose("stop", "--timeout", "120", timeout=400)
    ends = {service: stack.inspect(service)["State"] for service in (*LONG_RUNNING, *MONITORS)}
    assert {service: (end["ExitCode"], end["OOMKilled"]) for service, end in ends.items()} == dict.fromkeys(
        ends, (0, False)
    )
    stack.up()
    assert {job["id"]: job["state"] for job in trainer.get("/jobs").json()} == known
    body = {"samples": [{"prompt": "Say sky", "response": "sky."}], "model": reward_model}
    assert reward.post("/reward", json=body).status_code == 200
    assert policy.post("/generate", json={"prompts": ["Say sky"], "sampling": {"max_new_tokens": 2}}).status_code == 200
