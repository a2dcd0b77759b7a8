"""Whatever is sent to any route of the reward service, the answer is no fault of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis

from services.reward.app import create_app
from services.reward.settings import RewardSettings
from tests.contract.reward.conftest import KEY
from tests.odd_requests import answers_by_status
from tests.serving import served

ROUTES = [
    ("POST", "/reward"),
    ("POST", "/get_reward"),
    ("POST", "/classify"),
    ("POST", "/pooling"),
    ("POST", "/score"),
    ("POST", "/v1/score"),
    ("POST", "/predict"),
    ("POST", "/rerank"),
    ("POST", "/v1/rerank"),
    ("POST", "/models/{name}/load"),
    ("GET", "/models"),
]


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    settings = RewardSettings(
        model=str(folder / "tiny"), store=folder / "store", api_key="secret", threads=1, reward_model="rm-a@1"
    )
    with served(create_app(settings)) as url:
        yield url


@pytest.fixture(scope="module")
def schema(url: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{url}/openapi.json", headers=KEY)


def test_every_route_of_the_schema_is_drawn_from(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json", headers=KEY).json()["paths"]
    known = {"/health", "/ready", "/metrics", *(path for _, path in ROUTES)}
    assert set(paths) == known


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[path for _, path in ROUTES])
def test_whatever_is_sent_the_answer_is_no_fault_of_ours(
    schema: schemathesis.BaseSchema, method: str, path: str
) -> None:
    seen = answers_by_status(schema, method, path, KEY)
    assert seen
    print(f"{method} {path}: {dict(sorted(seen.items()))}")
