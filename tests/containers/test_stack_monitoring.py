"""Prometheus itself scrapes the stack, evaluates every rule, and finds something behind every line of a dashboard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.containers.conftest import REWARD_MODEL
from tests.containers.stack import ROOT, Stack, ppo_job, submit, wait_for_job

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

SCRAPED = {"policy", "reward", "trainer-api", "learner", "rollout", "evaluation", "console"}
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))


class Prometheus:
    """The container's API."""

    def __init__(self, stack: Stack) -> None:
        self.url = f"{stack.url('prometheus')}/api/v1"

    def get(self, path: str, **params: Any) -> Any:
        answer = httpx.get(f"{self.url}/{path}", params=params, timeout=30)
        assert answer.status_code == 200, (params, answer.text)
        return answer.json()["data"]

    def seen(self, expression: str) -> list[float]:
        """Finite values of the last quarter of an hour, as a dashboard draws them."""
        now = time.time()
        found = self.get("query_range", query=expression, start=now - 900, end=now, step=5)["result"]
        return [v for series in found for _, v in ((t, float(x)) for t, x in series["values"]) if math.isfinite(v)]


def eventually(done: Callable[[], Any], within: float = 90) -> Any:
    deadline = time.monotonic() + within
    while not (answer := done()):
        assert time.monotonic() < deadline
        time.sleep(1)
    return answer


@pytest.fixture(scope="module")
def prometheus(stack: Stack, trainer: httpx.Client) -> Prometheus:
    """After a reward model that it has seen, and a PPO job that took its place."""
    prometheus = Prometheus(stack)
    job = submit(trainer, REWARD_MODEL)
    wait_for_job(trainer, job)
    eventually(lambda: prometheus.seen(f'rlhf_job_validation_accuracy{{job_id="{job}"}}'))
    wait_for_job(trainer, submit(trainer, ppo_job(f"{job}@1", steps=20)))
    return prometheus


def test_every_service_is_scraped(prometheus: Prometheus) -> None:
    """Also after the whole stack was stopped and started: what had another address before is not down, but gone."""

    def found() -> list[tuple[str, str, str]]:
        answers = prometheus.get("query", query="up")["result"]
        return sorted((s["metric"]["job"], s["value"][1], s["metric"]["instance"]) for s in answers)

    deadline = time.monotonic() + 90
    while {(job, value) for job, value, _ in found()} != {(job, "1") for job in SCRAPED}:
        assert time.monotonic() < deadline, found()
        time.sleep(1)


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]] | None:
        found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        return None if any(rule["health"] == "unknown" for rule in found) else found

    rules = eventually(evaluated)
    assert len(rules) == (ROOT / "deploy/prometheus/rules.yml").read_text().count("- alert:")
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_no_line_of_a_dashboard_is_empty(prometheus: Prometheus, dashboard: Path) -> None:
    panels = json.loads(dashboard.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]

    def empty() -> list[str]:
        return [expression for expression in expressions if not prometheus.seen(expression)]

    # A rate needs two looks of Prometheus.
    deadline = time.monotonic() + 60
    while empty():
        assert time.monotonic() < deadline, empty()
        time.sleep(2)


def test_celerys_page_wants_the_key_and_shows_the_workers(stack: Stack, key: str) -> None:
    with httpx.Client(base_url=stack.url("flower"), timeout=60) as anybody:
        assert anybody.get("/workers").status_code == 401
        assert anybody.get("/workers", auth=("rlhf", "wrong")).status_code == 401
        page = anybody.get("/workers", auth=("rlhf", key))
        assert page.status_code == 200
        eventually(lambda: "rollouts-" in anybody.get("/workers", auth=("rlhf", key)).text)
