"""SageMaker's two routes: the same answers as at the dialects' own, told apart by a field."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from services.policy.app import create_app
from services.policy.settings import PolicySettings
from tests.contract.policy.test_native import refused
from tests.waiting import wait_ready

TURNS = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "temperature": 0}
PROMPT = {"prompt": "hi", "max_tokens": 8, "temperature": 0}
INPUTS = {"inputs": "hi", "parameters": {"max_new_tokens": 8}}


def without_what_differs(answer: dict | list) -> dict | list:
    """Answers carry their own id and time."""
    return {k: v for k, v in answer.items() if k not in ("id", "created")} if isinstance(answer, dict) else answer


@pytest.mark.parametrize(
    ("path", "body"), [("/", INPUTS), ("/v1/chat/completions", TURNS), ("/v1/completions", PROMPT)]
)
def test_invocations_answer_as_the_dialects_own_route(client: TestClient, path: str, body: dict) -> None:
    own, there = (client.post(route, json=body) for route in (path, "/invocations"))
    assert there.status_code == 200, there.text
    assert without_what_differs(there.json()) == without_what_differs(own.json())
    streamed = client.post("/invocations", json={**body, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.endswith("data: [DONE]\n\n") == (path != "/"), "TGI's own stream has no such line"


def test_inputs_come_as_a_list_with_tgis_headers(client: TestClient) -> None:
    answer = client.post("/invocations", json=INPUTS)
    assert [set(one) for one in answer.json()] == [{"generated_text", "details"}]
    assert answer.headers["x-prompt-tokens"] == "2"


def test_a_body_of_no_dialect_is_refused(client: TestClient) -> None:
    for body in ({"text": "hi"}, [], {}):
        words = refused(client, 422, "validation", path="/invocations", json=body)
        assert "`inputs` (as to /), `messages` or `prompt` (as to /v1)" in words
    assert "best_of" in refused(
        client, 422, "validation", path="/invocations", json={"inputs": "hi", "parameters": {"best_of": 2}}
    )
    assert "text: unknown field" in refused(client, 422, "validation", path="/invocations", json=PROMPT | {"text": ""})


def test_ping_says_whether_there_is_a_model_and_needs_no_key(model_folder: Path, store: ArtifactStore) -> None:
    app = create_app(PolicySettings(model=str(model_folder), store=store.root, api_key="k", threads=1))
    with TestClient(app) as stranger:
        wait_ready(stranger)
        assert stranger.get("/ping").json() == {"status": "ready"}
        assert stranger.post("/invocations", json=PROMPT).status_code == 401
        app.state.runtime.draining = True
        answer = stranger.get("/ping")
        assert answer.status_code == 503
        assert answer.json()["error_type"] == "unavailable"
        assert "draining" in answer.json()["error"]
