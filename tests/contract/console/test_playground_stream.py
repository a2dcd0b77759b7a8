"""The playground's stream, before tiny fakes of policy and reward, and one before a policy that never stops."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from services.console.app import create_app
from services.console.settings import ConsoleSettings
from tests.contract.console.conftest import KEY, NOWHERE, Fakes, csrf_of, log_in
from tests.serving import served

EVIL = "<script>alert(1)</script>"


def post(browser: TestClient, **form: str) -> httpx.Response:
    csrf = csrf_of(browser.get("/playground"))
    return browser.post("/playground/stream", data={"csrf": csrf, "prompt": "Hi", "max_tokens": "5", **form})


def events_of(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]


def text_of(events: list[dict], side: int) -> list[str]:
    return [event["text"] for event in events if event.get("side") == side and "text" in event]


def cards_of(events: list[dict], side: int) -> list[str]:
    return [event["card"] for event in events if event.get("side") == side and "card" in event]


def test_both_models_come_token_by_token_and_marked_at_the_end(browser: TestClient, fakes: Fakes) -> None:
    fakes.text = "a cat sat and a cat sat"
    events = events_of(post(browser, right="ppo-1@3", temperature="0.5"))
    left, right = sorted(fakes.asked, key=lambda body: body["model"])
    assert (left["model"], right["model"]) == ("base", "ppo-1@3")
    assert {**left, "model": ""} == {**right, "model": ""}, "the same seed too"
    assert (left["stream"], left["temperature"]) == (True, 0.5)

    assert events[0]["answers"].count('aria-busy="true"') == 2
    assert f"seed {left['seed']}" in events[0]["answers"]
    for side in (0, 1):
        assert text_of(events, side) == ["a", " cat", " sat", " and", " a", " cat", " sat"]
        (card,) = cards_of(events, side)
        # "a cat sat" comes twice, in 6 of 7 tokens; exp(-0.5) = 0.6065.
        assert card.count("token p0 repeated") == 6
        assert 'title="log-probability −0.5 (60.7 %)"> and</span>' in card
        assert "it ended by itself" in card
        assert "aria-busy" not in card
    assert events[-1] == {"end": "Both models have answered."}


def test_scores_come_when_both_are_complete(browser: TestClient) -> None:
    events = events_of(post(browser, reward_model="rm@1"))
    for side in (0, 1):
        before, after = cards_of(events, side)
        assert "uncertainty" not in before
        assert '<th scope="row">uncertainty</th><td class="number">0.25</td>' in after


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ('data: {"error": "no memory is left", "error_type": "overloaded"}\n\n', "no memory is left"),
        ("", "broke off in the middle of its answer"),
        ('data: {"choices": 1}\n\n', "something else than ChatChunk"),
    ],
)
def test_an_error_in_the_middle_is_shown_below_what_was_said(
    browser: TestClient, fakes: Fakes, end: str, told: str
) -> None:
    fakes.broken = end
    events = events_of(post(browser, left="broken@1"))
    assert (text_of(events, 0), text_of(events, 1)) == (["Hello"], ["Hello", " there"])
    (left,), (right,) = cards_of(events, 0), cards_of(events, 1)
    assert re.search(r'Hello</span></p>\s*<p class="wrong" role="alert">[^<]*' + told, left)
    assert "it ended by itself" in right
    assert events[-1] == {"end": "One model failed."}


def test_a_model_that_is_missing_leaves_the_other(browser: TestClient) -> None:
    events = events_of(post(browser, right="gone@1"))
    assert text_of(events, 0) == ["Hello", " there"]
    assert "adapter gone@1 does not exist" in cards_of(events, 1)[0]


def test_a_model_cannot_write_markup(browser: TestClient, fakes: Fakes) -> None:
    fakes.text = EVIL
    events = events_of(post(browser))
    assert EVIL not in cards_of(events, 0)[0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in cards_of(events, 0)[0]


def test_the_services_key_stays_here(browser: TestClient, fakes: Fakes) -> None:
    answer = post(browser)
    assert fakes.keys == {"Bearer the key of services"}
    assert "the key of" not in answer.text + str(answer.headers)


def test_a_stream_needs_the_forms_token(browser: TestClient, fakes: Fakes) -> None:
    assert browser.post("/playground/stream", data={"csrf": "x", "prompt": "Hi"}).status_code == 403
    assert fakes.asked == []


def test_a_form_with_problems_asks_nothing(browser: TestClient, fakes: Fakes) -> None:
    answer = post(browser, prompt=" ", left="../x")
    assert answer.status_code == 422
    assert "write a prompt" in answer.text
    assert fakes.asked == []


@pytest.fixture
def gone() -> threading.Semaphore:
    """Released once for each stream that the endless policy lets go."""
    return threading.Semaphore(0)


@pytest.fixture
def endless(gone: threading.Semaphore) -> Iterator[str]:
    """The URL of a policy that writes for ever."""
    app = FastAPI()
    envelope = {"id": "x", "created": 0, "model": "base", "system_fingerprint": "fake"}
    chunk = json.dumps({**envelope, "choices": [{"index": 0, "delta": {"content": "on "}}]})

    async def lines() -> AsyncIterator[str]:
        try:
            while True:
                yield f"data: {chunk}\n\n"
                await asyncio.sleep(0.01)
        finally:
            gone.release()

    app.get("/ready")(lambda: {})
    app.post("/v1/chat/completions")(lambda: StreamingResponse(lines(), media_type="text/event-stream"))
    with served(app) as url:
        yield url


def test_a_visitor_who_leaves_frees_both_slots(endless: str, gone: threading.Semaphore) -> None:
    settings = ConsoleSettings(trainer_url=NOWHERE, policy_url=endless, reward_url=NOWHERE, api_key=KEY)
    with served(create_app(settings)) as url, httpx.Client(base_url=url) as visitor:
        log_in(visitor, to="/playground")
        form = {"csrf": csrf_of(visitor.get("/playground")), "prompt": "Hi"}
        with visitor.stream("POST", "/playground/stream", data=form) as answer:
            texts = (line for line in answer.iter_lines() if '"text"' in line)
            assert '"text": "on "' in next(texts)
        for _ in range(2):
            assert gone.acquire(timeout=60)
