"""Retries, typed errors and what happens when the other side is not ours. The other side is ten lines here."""

from collections.abc import Callable

import httpx
import pytest

from rlhf.clients.http import NO_RETRIES, AnswerTimeout, Retries, ServiceClient
from rlhf.clients.policy import PolicyClient
from rlhf.contracts.base import Contract, Message
from rlhf.contracts.errors import (
    Conflict,
    GenerationFailed,
    InternalError,
    InvalidInput,
    NotFound,
    Overloaded,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from rlhf.contracts.policy import GenerateRequest


class Fruit(Contract):
    name: str


def ours(status: int, kind: str, **headers: str) -> httpx.Response:
    body = {"error": "because", "error_type": kind, "request_id": "r"}
    return httpx.Response(status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


class Scripted:
    """Answers in order; an exception in the script is raised."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.requests, self.slept = list(answers), [], []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, kind: Callable[..., ServiceClient] = ServiceClient, **options) -> ServiceClient:
        transport = httpx.MockTransport(self)
        return kind("http://there:1/", "key", transport=transport, sleep=self.slept.append, **options)


OK = httpx.Response(200, json={"name": "plum"})
DOWN = httpx.ConnectError("connection refused")


def test_a_message_and_the_key_travel() -> None:
    script = Scripted(OK)
    assert script.client().fetch(Fruit, "POST", "/fruit", json={"a": 1}, params={"x": None, "y": 2}).name == "plum"
    request = script.requests[0]
    assert str(request.url) == "http://there:1/fruit?y=2"
    assert request.headers["authorization"] == "Bearer key"
    assert script.slept == []


@pytest.mark.parametrize(
    "trouble", [DOWN, ours(503, "unavailable"), ours(429, "overloaded"), httpx.RemoteProtocolError("x")]
)
def test_passing_trouble_is_waited_out(trouble: httpx.Response | Exception) -> None:
    script = Scripted(trouble, trouble, OK)
    assert script.client().fetch(Fruit, "GET", "/").name == "plum"
    # At most 0.25 and 0.5 s, at least half of that.
    assert 0.125 <= script.slept[0] <= 0.25
    assert 0.25 <= script.slept[1] <= 0.5


def test_delays_double_up_to_a_limit() -> None:
    plan = Retries(first_delay_s=1, longest_delay_s=5)
    for attempt, ceiling in enumerate([1, 2, 4, 5, 5]):
        for _ in range(20):
            assert ceiling / 2 <= plan.delay(attempt, None) <= ceiling


def test_retry_after_is_honoured_within_reason() -> None:
    script = Scripted(ours(429, "overloaded", retry_after="7"), ours(503, "unavailable", retry_after="9999"), OK)
    script.client().send("GET", "/")
    assert script.slept == [7.0, 30.0]


def test_giving_up_raises_the_last_error() -> None:
    script = Scripted(DOWN, DOWN, ours(429, "overloaded", retry_after="3"))
    with pytest.raises(Overloaded) as caught:
        script.client(retries=Retries(attempts=3)).send("GET", "/")
    assert caught.value.retry_after == 3.0
    assert len(script.slept) == 2


def test_a_service_that_is_not_there() -> None:
    script = Scripted(DOWN)
    with pytest.raises(Unavailable, match=r"service cannot be reached at http://there:1 \(connection refused\)"):
        script.client(retries=NO_RETRIES).send("GET", "/")


def test_an_answer_that_takes_too_long_is_not_asked_for_again() -> None:
    script = Scripted(httpx.ReadTimeout("slow"))
    with pytest.raises(AnswerTimeout, match="did not answer GET /x within 3 s"):
        script.client(timeout_s=3.0).send("GET", "/x")
    assert script.slept == []


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (422, "validation", InvalidInput),
        (401, "unauthorized", Unauthorized),
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (413, "too_large", TooLarge),
        (424, "generation", GenerationFailed),
        (500, "internal", InternalError),
    ],
)
def test_the_servers_error_is_raised_by_its_type_at_once(status: int, kind: str, raised: type[ServiceError]) -> None:
    script = Scripted(ours(status, kind))
    with pytest.raises(raised, match="because"):
        script.client().send("GET", "/")
    assert script.slept == []


@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, InvalidInput), (301, InvalidInput), (403, Unauthorized), (404, NotFound), (500, InternalError)],
)
def test_errors_that_are_not_ours_are_quoted(status: int, raised: type[ServiceError]) -> None:
    script = Scripted(httpx.Response(status, text="<html>a proxy"))
    with pytest.raises(raised, match=f"answered {status} with '<html>a proxy'"):
        script.client().send("GET", "/")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_trouble_told_by_a_proxy_is_waited_out_too(status: int) -> None:
    script = Scripted(httpx.Response(status, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}), OK)
    script.client().send("GET", "/")
    assert len(script.slept) == 1


def test_an_answer_of_another_kind_is_told() -> None:
    script = Scripted(httpx.Response(200, json={"colour": "blue"}))
    with pytest.raises(InternalError, match="something else than Fruit"):
        script.client().fetch(Fruit, "GET", "/")


def test_ready_asks_once() -> None:
    assert Scripted(OK).client().ready()
    for trouble in (ours(503, "unavailable"), DOWN):
        script = Scripted(trouble)
        assert not script.client().ready()
        assert script.slept == []


def test_streams_raise_the_same_errors() -> None:
    with Scripted(OK).client().stream("GET", "/") as answer:
        assert answer.read()
    with pytest.raises(NotFound), Scripted(ours(404, "not_found")).client().stream("GET", "/"):
        pass
    with pytest.raises(Unavailable), Scripted(DOWN).client().stream("GET", "/"):
        pass


def test_policy_client_speaks_the_native_dialect() -> None:
    result = {
        "prompt_index": 0,
        "sample_index": 0,
        "text": "t",
        "finish_reason": "length",
        "generated_tokens": 1,
        "seed": 1,
    }
    answer = {"model": "m", "adapter": None, "policy_version": 0, "results": [result]}
    script = Scripted(httpx.Response(200, json={**answer, "timings": {"queue_s": 0, "inference_s": 0}}))
    request = GenerateRequest(prompts=["a", [Message(role="user", content="b")]])
    with script.client(PolicyClient) as client:
        assert client.generate(request).results[0].text == "t"
    assert script.requests[0].url.path == "/generate"
    assert GenerateRequest.model_validate_json(script.requests[0].content) == request
