"""Dashboards and alerts name metrics that the services expose, and the documents list them."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from services.trainer.jobs import instruments
from services.trainer.ppo import watchdogs
from tests.unit.promql import metric_names

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
OF_PROMETHEUS = {"up"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def exposed() -> set[str]:
    """Every series that some service has: those of its modules, whether they were counted up yet or not."""
    for module in (
        "rlhf.serving.service",
        "services.policy.engine.instruments",
        "services.reward.instruments",
        "services.trainer.jobs.instruments",
    ):
        importlib.import_module(module)
    return {family.name + suffix for family in REGISTRY.collect() for suffix in SUFFIXES.get(family.type, ())}


def panels(dashboard: Path) -> list[dict[str, Any]]:
    return list(json.loads(dashboard.read_text())["panels"])


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_names_are_found_between_functions_labels_and_keywords() -> None:
    expression = 'sum by (le, a) (rate(x_bucket{b=~"c.."}[5m:1m])) / on () max(y) > 0 or time() - z unless w offset 5m'
    assert metric_names(expression) == {"x_bucket", "y", "z", "w"}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_show_metrics_that_exist(dashboard: Path) -> None:
    for panel in panels(dashboard):
        assert panel["targets"]
        for target in panel["targets"]:
            names = metric_names(target["expr"])
            assert names, target
            assert names <= exposed() | OF_PROMETHEUS, (panel["title"], names - exposed())


def test_alerts_look_at_metrics_that_exist_and_say_what_is_wrong() -> None:
    for rule in rules():
        assert metric_names(rule["expr"]) <= exposed() | OF_PROMETHEUS, rule
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_operations_lists_every_metric_and_every_alert() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    ours = {name for name in exposed() if name.startswith(("rlhf_", "tgi_"))}
    listed = set(re.findall(r"`((?:rlhf|tgi)_\w+)", text))
    missing = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours - listed}
    assert not missing - listed
    assert not [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in text]


def test_the_watchdogs_that_are_counted_from_0_are_those_there_are() -> None:
    source = Path(watchdogs.__file__).read_text()
    assert set(re.findall(r'Alert\(\s*"(\w+)"', source)) == set(watchdogs.NAMES)


def samples(job: str) -> dict[str, float]:
    return {
        s.name: s.value for family in REGISTRY.collect() for s in family.samples if s.labels.get("job_id", "") == job
    }


def test_a_jobs_numbers_are_gauges_until_the_next_job() -> None:
    instruments.show_job("first", 1, 4, {"reward_mean": 0.5, "beta": 0.1, "unknown": 9.0}, now=100.0)
    seen = samples("first")
    assert (seen["rlhf_job_reward_mean"], seen["rlhf_job_step"], seen["rlhf_job_steps"]) == (0.5, 1, 4)
    assert seen["rlhf_job_progress_timestamp_seconds"] == 100
    assert "rlhf_job_unknown" not in seen
    instruments.show_job("second", 1, 2, {"loss": 0.7}, now=200.0)
    assert samples("first") == {}
    assert set(samples("second")) == {
        "rlhf_job_step", "rlhf_job_steps", "rlhf_job_progress_timestamp_seconds", "rlhf_job_loss",
    }  # fmt: skip
