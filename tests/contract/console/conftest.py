"""The console in this process, before the real job API on a real Redis, and tiny fakes of policy and reward."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from redis import Redis

from rlhf.artifacts.store import ArtifactStore
from rlhf.clients.http import NO_RETRIES
from rlhf.clients.policy import PolicyClient
from rlhf.clients.reward import RewardClient
from rlhf.clients.trainer import TrainerClient
from services.console.app import create_app
from services.console.backends import Backends
from services.console.settings import ConsoleSettings
from services.trainer.api.app import create_app as create_trainer
from services.trainer.jobs.store import JobStore
from services.trainer.settings import ApiSettings
from tests.integration.conftest import redis_client, redis_server, redis_url

__all__ = ["redis_client", "redis_server", "redis_url"]
KEY = "the key of people"
NOWHERE = "http://nowhere"


@dataclass
class Fakes:
    """What policy and reward answer, and what they were asked."""

    members: dict[str, list[float]] = field(default_factory=dict)
    """Scores of the ensemble's members, by the response."""
    text: str = "Hello there"
    broken: str = "data: [DONE]\n\n"
    """What a stream of the model `broken@1` ends with, in place of its last words."""
    asked: list[dict] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    def policy(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/generate":
            return self.generate(request)
        body = json.loads(request.content)
        self.asked.append(body)
        self.keys.add(request.headers.get("authorization"))
        if body["model"] == "gone@1":
            return httpx.Response(404, json={"error": "adapter gone@1 does not exist", "error_type": "not_found"})
        tokens = [
            {"token": word, "bytes": list(word.encode()), "logprob": -0.5} for word in re.findall(r"\s?\S+", self.text)
        ]
        envelope = {"id": "x", "created": 0, "model": body["model"], "system_fingerprint": "fake"}
        if body.get("stream"):
            return self._streamed(envelope, tokens)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text},
            "finish_reason": "stop",
            "logprobs": {"content": tokens},
        }
        usage = {"prompt_tokens": 1, "completion_tokens": len(tokens), "total_tokens": 1 + len(tokens)}
        return httpx.Response(200, json={**envelope, "choices": [choice], "usage": usage})

    def _streamed(self, envelope: dict, tokens: list[dict]) -> httpx.Response:
        """One event a token; the last says why it ended."""
        said = [
            {"index": 0, "delta": {"content": token["token"]}, "logprobs": {"content": [token]}} for token in tokens
        ]
        said = [{"index": 0, "delta": {"role": "assistant", "content": ""}}, *said]
        said[-1]["finish_reason"] = "stop"
        broken = envelope["model"] == "broken@1"
        lines = [f"data: {json.dumps({**envelope, 'choices': [each]})}\n\n" for each in said[: -1 if broken else None]]
        lines.append(self.broken if broken else "data: [DONE]\n\n")
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text="".join(lines))

    def reward(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            models = {"backbone": "b", "loaded": [], "default": None, "available": ["rm@1"]}
            return httpx.Response(200, json=models)
        score = {"reward": 1.5, "objectives": {}, "score": 1.5, "uncertainty": 0.25, "truncated": False}
        samples = json.loads(request.content)["samples"]
        results = [score | {"members": self.members.get(each["response"], [1.25, 1.75])} for each in samples]
        timings = {"queue_s": 0, "inference_s": 0}
        return httpx.Response(200, json={"model": "rm@1", "results": results, "timings": timings})

    def generate(self, request: httpx.Request) -> httpx.Response:
        """Every model repeats the prompt and says its name, but for one that each of them answers alike."""
        body = json.loads(request.content)
        self.asked.append(body)
        model, sampling = body["adapter"] or "base", body["sampling"]
        result = {"sample_index": 0, "finish_reason": "eos_token", "generated_tokens": 1, "seed": sampling["seed"]}
        results = [
            {**result, "prompt_index": index, "text": "Same" if prompt == "Alike?" else f"{prompt} {model}"}
            for index, prompt in enumerate(body["prompts"])
        ]
        named = {"model": "m", "adapter": body["adapter"], "policy_version": 0}
        return httpx.Response(200, json={**named, "results": results, "timings": {"queue_s": 0, "inference_s": 0}})


class InProcess(httpx.BaseTransport):
    """Hands a client's requests to an application in this process."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = dict(request.headers)
        answer = self._client.request(request.method, str(request.url), content=request.read(), headers=headers)
        return httpx.Response(answer.status_code, headers={"content-type": "application/json"}, content=answer.content)


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
def settings(tmp_path: Path) -> ConsoleSettings:
    return ConsoleSettings(
        trainer_url=NOWHERE,
        policy_url=NOWHERE,
        reward_url=NOWHERE,
        api_key=KEY,
        services_api_key="the key of services",
        console_database=str(tmp_path / "console.sqlite3"),
    )


@pytest.fixture
def trainer(redis_url: str, tmp_path: Path) -> Iterator[TestClient]:
    store = ArtifactStore(tmp_path / "store")
    store.publish("reward_models", "rm", 1, lambda folder: (folder / "config.json").write_text("{}"))
    api = ApiSettings(redis_url=redis_url, store=store.root, reconcile_s=60, api_key="the key of services")
    with TestClient(create_trainer(api)) as client:
        yield client


@pytest.fixture
def jobs(trainer: TestClient, redis_client: Redis) -> JobStore:
    """The records, as a learner writes them."""
    return JobStore(redis_client, trainer.app.state.desk.settings)


@pytest.fixture
def app(settings: ConsoleSettings, trainer: TestClient, fakes: Fakes) -> FastAPI:
    key = settings.key_for_services
    return create_app(
        settings,
        Backends(
            TrainerClient("http://testserver", key, retries=NO_RETRIES, transport=InProcess(trainer)),
            PolicyClient(NOWHERE, key, retries=NO_RETRIES, transport=httpx.MockTransport(fakes.policy)),
            RewardClient(NOWHERE, key, retries=NO_RETRIES, transport=httpx.MockTransport(fakes.reward)),
        ),
    )


@pytest.fixture
def visitor(app: FastAPI) -> Iterator[TestClient]:
    """A browser that has not logged in."""
    with TestClient(app, follow_redirects=False) as client:
        yield client


def csrf_of(page: httpx.Response) -> str:
    return re.search(r'name="csrf" value="([^"]+)"', page.text).group(1)


@pytest.fixture
def newcomer(app: FastAPI, browser: TestClient) -> Callable[[str], TestClient]:
    """Adds an annotator by name, and logs in as that one in a browser of its own."""

    def add(name: str) -> TestClient:
        client = TestClient(app, follow_redirects=False)
        assert log_in(client, add_person(browser, name)).status_code == 303
        return client

    return add


def add_person(admin: TestClient, name: str, role: str = "annotator") -> str:
    """The key that the page shows."""
    answer = admin.post("/people", data={"csrf": csrf_of(admin.get("/people")), "name": name, "role": role})
    return re.search(r'<code class="wrap">([^<]+)</code>', answer.text).group(1)


def log_in(client: TestClient, key: str = KEY, to: str = "/") -> httpx.Response:
    form = {"csrf": csrf_of(client.get("/login")), "key": key, "next": to}
    return client.post("/login", data=form)


@pytest.fixture
def browser(visitor: TestClient) -> TestClient:
    """A browser that has logged in."""
    assert log_in(visitor).status_code == 303
    return visitor
