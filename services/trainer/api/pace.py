"""How long a job would take, at the pace of the newest earlier job of its kind on the same model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rlhf.artifacts.replaced import CONFIG as REPLACED
from rlhf.contracts.estimate import TimeEstimate
from rlhf.contracts.jobs import AnyJobConfig, JobKind, PpoJobConfig, RewardModelJobConfig
from services.trainer.api.served_model import Model
from services.trainer.api.submission import Desk
from services.trainer.estimate import reward_model
from services.trainer.estimate.flops import ppo_step_flops
from services.trainer.estimate.ppo_load import StepLoad, step_load
from services.trainer.estimate.shape import ModelShape
from services.trainer.jobs.handle import read_config
from services.trainer.jobs.series import read_series

LOOKED_AT = 20
"""Earlier jobs that are looked at, the newest first."""
STEPS = 20
"""Last steps of an earlier job that make its pace."""
NEEDED = ("rollout_s", "learn_s", "tokens", "samples")


@dataclass(frozen=True)
class PpoPace:
    """Attributes: seconds waited for a response token; seconds of learning a floating-point operation."""

    token_s: float
    operation_s: float


def estimate_time(desk: Desk, config: PpoJobConfig | RewardModelJobConfig, model: Model) -> TimeEstimate:
    """The job's hours, with its basis. Args: desk; config, of the job; model, that it would run on."""
    if isinstance(config, PpoJobConfig):
        return _ppo_time(desk, config, model)
    return _reward_model_time(desk, config, model)


def _ppo_time(desk: Desk, config: PpoJobConfig, model: Model) -> TimeEstimate:
    for job, folder in _earlier(desk, "ppo"):
        rows = [row for row in read_series(folder) if all(row.get(name) for name in NEEDED)]
        if not rows or _trained_model(desk, job) != model.name:
            continue
        earlier = _config_in(folder)
        if not isinstance(earlier, PpoJobConfig):
            continue
        pace = ppo_pace(model.shape, earlier, rows[-STEPS:])
        load = step_load(config, packs=model.shape.packs)
        step = pace.token_s * load.response_tokens + pace.operation_s * _learning(model.shape, config, load)
        basis = (
            f"{job} on this model: its last {len(rows[-STEPS:])} steps, waiting scaled by response tokens and learning "
            "by operations; on other machines it is another"
        )
        return TimeEstimate(hours=config.steps * step / 3600, seconds_per_step=step, basis=basis)
    return _none_known("ppo", model)


def ppo_pace(shape: ModelShape, config: PpoJobConfig, rows: Sequence[dict[str, Any]]) -> PpoPace:
    """The pace of a job. Args: shape, of its model; config, its own; rows, of its metrics."""
    rollout_s, learn_s, tokens, samples = (median(float(row[name]) for row in rows) for name in NEEDED)
    load = step_load(config, packs=shape.packs, response=max(1, math.ceil(tokens / samples)))
    return PpoPace(rollout_s / tokens, learn_s / _learning(shape, config, load))


def _learning(shape: ModelShape, config: PpoJobConfig, load: StepLoad) -> float:
    return sum(value for name, value in ppo_step_flops(shape, config, load).items() if name != "sampling")


def _reward_model_time(desk: Desk, config: RewardModelJobConfig, model: Model) -> TimeEstimate:
    for job, folder in _earlier(desk, "reward_model"):
        told = _read_json(folder / "metrics.json")
        seconds = sum(told.get("durations", {}).values())
        if not seconds or told["shape"]["backbone"] != model.name:
            continue
        earlier = _config_in(folder)
        if not isinstance(earlier, RewardModelJobConfig):
            continue
        there = _reward_model_flops(model.shape, earlier.model_copy(update={"epochs": told["epochs"]}))
        whole = seconds * _reward_model_flops(model.shape, config) / there
        basis = f"{job} on this model, scaled by operations; on other machines it is another"
        return TimeEstimate(hours=whole / 3600, seconds_per_step=whole / config.epochs, basis=basis)
    return _none_known("reward_model", model)


def _reward_model_flops(shape: ModelShape, config: RewardModelJobConfig) -> float:
    load = reward_model.reading_load(config, packs=shape.packs)
    return sum(reward_model.job_flops(shape, config, load).values())


def _earlier(desk: Desk, kind: JobKind) -> Iterator[tuple[str, Path]]:
    for status in desk.jobs.recent(None, kind, LOOKED_AT):
        yield status.id, desk.store.root / "jobs" / status.id


def _config_in(folder: Path) -> AnyJobConfig | None:
    """The config of a job; None when its file is gone, or another version of the software wrote it."""
    try:
        return read_config(folder)
    except (OSError, ValueError):
        return None


def _trained_model(desk: Desk, job: str) -> str | None:
    """The model that the job's newest version is for, an adapter or replaced weights."""
    version = max(desk.store.versions("adapters", job), default=None)
    folder = desk.store.root / "adapters" / job / str(version)
    told = _read_json(folder / "adapter_config.json") or _read_json(folder / REPLACED)
    name = told.get("base_model_name_or_path")
    return name if isinstance(name, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _none_known(kind: JobKind, model: Model) -> TimeEstimate:
    basis = f"none of the newest {LOOKED_AT} {kind} jobs has measured steps on {model.name} yet"
    return TimeEstimate(hours=None, seconds_per_step=None, basis=basis)
