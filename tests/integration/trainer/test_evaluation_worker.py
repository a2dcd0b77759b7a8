"""Evaluation jobs on a real worker process against a stand-in for policy and reward."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from tests.integration.trainer.conftest import Worker, wait_for

Start = Callable[..., Worker]
Until = Callable[..., dict]
PROMPTS = [{"prompt": f"Question {i}", "type": "t", "label": "safe"} for i in range(64)]
XSTEST = {"kind": "evaluation", "adapter": "ppo@1", "xstest": {"prompts": PROMPTS}}


class Policy(ThreadingHTTPServer):
    """Answers "Sure.", or an apology by the adapter; stops answering after so many requests while `open` is not set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str | None, str]] = []
        self.open, self.free = threading.Event(), 4

    def generate(self, body: dict) -> dict:
        self.asked.append((body["adapter"], body["prompts"][0]))
        if len(self.asked) > self.free:
            self.open.wait(60)
        text = "I'm sorry, no." if body["adapter"] else "Sure."
        results = [
            {"prompt_index": i, "sample_index": 0, "text": text, "finish_reason": "eos_token", "generated_tokens": 1}
            | {"token_ids": [1], "seed": 0}
            for i in range(len(body["prompts"]))
        ]
        timings = {"queue_s": 0, "inference_s": 0}
        told = {"model": "m", "adapter": body["adapter"], "policy_version": 1 if body["adapter"] else 0}
        return told | {"results": results, "timings": timings}


class Handler(BaseHTTPRequestHandler):
    server: Policy

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = json.dumps(self.server.generate(body)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def policy(store: ArtifactStore, environment: dict[str, str]) -> Iterator[Policy]:
    store.publish("adapters", "ppo", 1, lambda folder: (folder / "adapter_config.json").write_text("{}"))
    server = Policy()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    environment |= {"RLHF_POLICY_URL": server.url, "RLHF_REWARD_URL": server.url, "RLHF_API_KEY": "k"}
    yield server
    server.open.set()
    server.shutdown()
    thread.join()
    server.server_close()


def submit(api: TestClient) -> str:
    answer = api.post("/jobs", json=XSTEST)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def test_a_killed_evaluation_goes_on_where_it_was(policy: Policy, start: Start, api: TestClient, until: Until) -> None:
    doomed = start("evaluations").ready()
    job = submit(api)
    # Two units of 16 prompts are done, and the third is being asked for.
    wait_for(lambda: len(policy.asked) == policy.free + 1)
    assert api.get(f"/jobs/{job}").json()["step"] == 2
    doomed.kill()
    policy.free = 1000
    policy.open.set()
    start("evaluations").ready()
    status = until(job, "succeeded", "failed")
    assert (status["state"], status["attempts"], status["step"]) == ("succeeded", 2, 4), status
    assert status["last_metrics"]["xstest/adapter/over_refusal/rate"] == 1.0
    assert status["last_metrics"]["xstest/change/over_refusal"] == 1.0
    # Only the unit that was cut short was asked for again.
    assert sorted(set(policy.asked), key=str) == sorted(
        [(side, f"Question {first}") for side in (None, "ppo@1") for first in (0, 16, 32, 48)], key=str
    )
    assert len(policy.asked) <= 8 + 1
    report = json.loads(api.get(f"/jobs/{job}/artifacts/evaluation.json").content)
    assert report["xstest"]["baseline"]["over_refusal"]["rate"] == 0.0
    assert "evaluation/xstest.jsonl" in {each["path"] for each in api.get(f"/jobs/{job}/artifacts").json()}


def test_an_evaluation_is_paused_resumed_and_cancelled(
    policy: Policy, start: Start, api: TestClient, until: Until
) -> None:
    start("evaluations").ready()
    job = submit(api)
    wait_for(lambda: len(policy.asked) == policy.free + 1)
    api.post(f"/jobs/{job}/pause")
    policy.free = 6
    policy.open.set()
    assert until(job, "paused", "succeeded")["state"] == "paused"
    policy.open.clear()
    policy.free = len(policy.asked)
    api.post(f"/jobs/{job}/resume")
    wait_for(lambda: len(policy.asked) == policy.free + 1)
    api.post(f"/jobs/{job}/cancel")
    policy.open.set()
    assert until(job, "cancelled", "succeeded")["state"] == "cancelled"
