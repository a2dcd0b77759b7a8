"""Whatever is sent to any route of the policy service, the answer is no fault of ours."""

import httpx
import pytest
import schemathesis

from tests.contract.policy.conftest import KEY
from tests.odd_requests import answers_by_status

HEADERS = {"Authorization": f"Bearer {KEY}"}
ROUTES = [
    ("POST", "/generate"),
    ("POST", "/logprobs"),
    ("POST", "/"),
    ("POST", "/generate_stream"),
    ("POST", "/tokenize"),
    ("POST", "/chat_tokenize"),
    ("POST", "/invocations"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/info"),
    ("GET", "/adapters"),
    ("GET", "/ping"),
]


@pytest.fixture(scope="module")
def schema(url: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{url}/openapi.json", headers=HEADERS)


def test_every_route_of_the_schema_is_drawn_from(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json", headers=HEADERS).json()["paths"]
    known = {"/health", "/ready", "/metrics", *(path for _, path in ROUTES)}
    assert set(paths) == known


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[path for _, path in ROUTES])
def test_whatever_is_sent_the_answer_is_no_fault_of_ours(
    schema: schemathesis.BaseSchema, method: str, path: str
) -> None:
    assert answers_by_status(schema, method, path, HEADERS)
