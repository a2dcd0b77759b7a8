"""One Compose project of this repository: up, down, what its services answer, and what the engine says of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
HTTP_SERVICES = ("policy", "reward", "trainer")
MONITORS = ("prometheus", "flower")
LONG_RUNNING = ("redis", "policy", "reward", "trainer-api", "learner", "rollout", "evaluation", "console", "front")
OWN_IMAGES = (
    "policy",
    "reward",
    "trainer-api",
    "evaluation",
    "learner",
    "console",
    "front",
    "demo",
    "postgres",
    *MONITORS,
)
WITH_MONITORS = "docker-compose.yml:deploy/compose/monitoring.yml:deploy/compose/flower.yml"


@dataclass
class Stack:
    """A project with its own name, ports, volumes and image tag, so that it meets no other one on this engine."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        doors = (*HTTP_SERVICES, "console", *MONITORS)
        self.ports = dict(zip(doors, free_ports(len(doors)), strict=True))
        # Nothing of the caller's own settings: a fresh clone has no .env either.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RLHF_", "COMPOSE_"))}
        self.environment = {
            **inherited,
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_DISABLE_ENV_FILE": "1",
            "RLHF_TAG": self.name,
            **{f"{service.upper()}_PORT": str(port) for service, port in self.ports.items()},
            **self.settings,
        }

    def run(self, *command: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in the root of the repository, with the stack's settings."""
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(
                f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def compose(self, *arguments: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("docker", "compose", *arguments, timeout=timeout, check=check)

    def up(self, *options: str) -> None:
        """The documented command; on failure with the logs of all services."""
        done = self.compose("up", "--build", "--wait", *options, timeout=1200, check=False)
        if done.returncode != 0:
            logs = self.compose("logs", "--no-color", "--tail", "40", check=False).stdout
            raise AssertionError(f"the stack did not come up:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{logs}")

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", timeout=300)

    def remove_images(self) -> None:
        self.run("docker", "image", "rm", *(f"rlhf-services/{image}:{self.name}" for image in OWN_IMAGES), check=False)

    def execute(self, service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command inside a running container."""
        return self.compose("exec", "-T", service, *command, check=check)

    def secret(self, name: str) -> str:
        return self.execute("trainer-api", "cat", f"/secrets/{name}").stdout.strip()

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the engine knows of a service's containers, running or not."""
        ids = self.compose("ps", "--all", "--quiet", service).stdout.split()
        return list(json.loads(self.run("docker", "inspect", *ids).stdout))

    def inspect(self, service: str) -> dict[str, Any]:
        """The same of a service that has one."""
        (facts,) = self.containers(service)
        return facts

    def crash(self, service: str) -> None:
        """Kills the child of the container's init. Not `docker kill`: that counts as a wish, and nothing restarts."""
        container = self.inspect(service)["Id"]
        self.run("docker", "exec", container, "sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)")

    def logs(self, service: str) -> list[str]:
        return self.compose("logs", "--no-color", "--no-log-prefix", service).stdout.splitlines()

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def client(self, service: str, *, key: str | None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        return httpx.Client(base_url=self.url(service), headers=headers, timeout=120)


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback that nobody listens on, all held until the last is known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def submit(trainer: httpx.Client, config: dict[str, Any]) -> str:
    """Submits a job; returns its id."""
    answer = trainer.post("/jobs", json=config)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ppo_job(reward_model: str, steps: int) -> dict[str, Any]:
    """A small PPO job."""
    return {
        "kind": "ppo",
        "prompts": ["Say sky", "Say sea"],
        "reward_model": reward_model,
        "steps": steps,
        "rollout": {"prompts_per_step": 2, "samples_per_prompt": 2, "max_new_tokens": 8},
        "update": {"epochs": 1, "minibatches": 1},
        "lora": {"r": 2, "alpha": 4},
    }


def wait_for_job(
    trainer: httpx.Client, job: str, done: Callable[[dict[str, Any]], bool] | None = None, within: float = 300
) -> dict[str, Any]:
    """The job's status once it is as asked, by default once it succeeded."""
    deadline = time.monotonic() + within
    while True:
        status: dict[str, Any] = trainer.get(f"/jobs/{job}").raise_for_status().json()
        if done(status) if done is not None else status["state"] == "succeeded":
            return status
        ended = status["state"] in ("succeeded", "failed", "cancelled", "paused")
        if ended or time.monotonic() > deadline:
            events = trainer.get(f"/jobs/{job}/events").json()[-10:]
            raise AssertionError(f"job {job} is {status}; its last events: {json.dumps(events, indent=1)}")
        time.sleep(0.2)
