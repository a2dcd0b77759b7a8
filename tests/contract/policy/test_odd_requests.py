"""Requests drawn from our own OpenAPI schema, right ones and wrong ones: no 5xx, no hang, errors of one shape.

RLHF_FUZZ_EXAMPLES=1000 draws a thousand for each route; the default keeps the suite quick.
"""

import os

import httpx
import hypothesis
import pytest
import schemathesis

from rlhf.contracts.errors import ErrorBody
from tests.contract.policy.conftest import KEY

EXAMPLES = int(os.environ.get("RLHF_FUZZ_EXAMPLES", "10"))
HEADERS = {"Authorization": f"Bearer {KEY}"}
ROUTES = [
    ("POST", "/generate"),
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
    operation = schema[path][method]

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode.POSITIVE))
    def right(case: schemathesis.Case) -> None:
        check(case)

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))
    def wrong(case: schemathesis.Case) -> None:
        check(case)

    def check(case: schemathesis.Case) -> None:
        answer = case.call(headers=HEADERS, timeout=60)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            ErrorBody.model_validate_json(answer.content)

    right()
    if method == "POST":
        wrong()
