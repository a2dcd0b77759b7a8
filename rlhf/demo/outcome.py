"""Puts a run's results together as report.json, and says what in them does not hold."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rlhf.contracts.jobs import JobEvent
from rlhf.evaluation.report import write_report
from rlhf.evaluation.verdict import judge

REWARD_MODEL_KEYS = (
    "members",
    "train_pairs",
    "eval_pairs",
    "accuracy_ensemble",
    "accuracy_members",
    "accuracy_length_baseline",
    "ece",
)
PPO_SERIES = (
    "policy_loss",
    "value_loss",
    "kl_sequence",
    "kl_token",
    "beta",
    "reward_mean",
    "uncertainty_mean",
    "entropy",
    "clip_fraction",
    "explained_variance",
    "ratio_first_minibatch",
    "response_length",
    "eos_rate",
)
"""One value a step, by the report's contract; every further number of the rows follows behind them."""

NOT_A_SERIES = ("step", "time", "samples", "tokens", "kl_target")
PACKAGES = ("rlhf-services", "torch", "transformers", "tokenizers", "peft", "celery", "redis", "fastapi", "numpy")


class ResultIncomplete(RuntimeError):
    """A job ended without a number that the report needs; says which."""


def describe_reward_model(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The report's `reward_model` from the job's metrics.json; further measures are kept.

    Raises:
        ResultIncomplete: a key is missing.
    """
    missing = [key for key in REWARD_MODEL_KEYS if key not in measured]
    if missing:
        raise ResultIncomplete(f"metrics.json of the reward-model job lacks {', '.join(missing)}")
    return {key: measured[key] for key in REWARD_MODEL_KEYS} | dict(measured)


def describe_ppo(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report's `ppo` from the job's metrics, one row a step.

    Raises:
        ResultIncomplete: there is no row, or a series is missing.
    """
    if not rows:
        raise ResultIncomplete("the PPO job reports no step")
    missing = [key for key in (*PPO_SERIES, "samples", "tokens", "kl_target") if key not in rows[-1]]
    if missing:
        raise ResultIncomplete(f"the metrics of the PPO job lack {', '.join(missing)}")
    further = [key for key in rows[-1] if key not in PPO_SERIES and key not in NOT_A_SERIES]
    return {
        "steps": len(rows),
        "samples": sum(int(row["samples"]) for row in rows),
        "tokens": sum(int(row["tokens"]) for row in rows),
        "kl_target": rows[-1]["kl_target"],
        **{key: [row.get(key) for row in rows] for key in (*PPO_SERIES, *further)},
    }


def collect_warnings(events: Sequence[JobEvent], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What someone should look at: watchdogs' findings, other warnings of the jobs, and claims that do not hold.

    Args:
        events: of both jobs.
        report: so far, for its claims.
    """
    found: list[dict[str, Any]] = [
        {"kind": event.kind, "name": event.name, "message": event.message, "level": event.level, **event.data}
        for event in events
        if event.kind == "watchdog" or event.level != "info"
    ]
    for claim in judge(report):
        if claim.holds is not True:
            seen = "does not hold" if claim.holds is False else "cannot be told"
            found.append({"kind": "claim", "name": "claim", "message": f"{claim.text}: {seen} ({claim.seen})"})
    return found


def describe_versions(model: str) -> dict[str, str]:
    """Versions of what took part."""
    versions = {"python": platform.python_version(), "platform": platform.platform(), "model": model}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_results(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.json and report.html; each appears whole."""
    draft = folder / "report.json.draft"
    draft.write_text(json.dumps(finite(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(folder / "report.json")
    render(report, folder / "report.html")


def finite(value: object) -> object:
    """The same with null for numbers that are not finite, which JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(report: Mapping[str, Any], path: Path) -> None:
    """Renders the page. Claims are left out of its list of events: it judges them itself."""
    events = [w for w in report.get("warnings", []) if not (isinstance(w, Mapping) and w.get("kind") == "claim")]
    write_report({**report, "warnings": events}, path)
