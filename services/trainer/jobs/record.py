"""The forms that a job's record and events have in Redis. No I/O."""

from __future__ import annotations

import json
import math
import time
from typing import Any, Literal, cast

from rlhf.contracts.jobs import BestVersion, JobState, JobStatus

EventKind = Literal["state", "progress", "watchdog", "log", "published"]
Level = Literal["info", "warning", "error"]


def event_json(kind: EventKind, level: Level, name: str, message: str, data: dict[str, Any]) -> str:
    """An event of now, as JobEvent but for its id."""
    event = {"time": time.time(), "kind": kind, "level": level, "name": name, "message": message, "data": data}
    return json.dumps(finite(event))


def finite(value: Any) -> Any:
    """The value with NaN and infinities as null: JSON has no others."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def read_status(record: dict[str, str], now: float) -> JobStatus:
    """The status of a job. Args: record, its hash; now, seconds since the epoch."""
    step, total, state = int(record["step"]), int(record["total_steps"]), JobState(record["state"])
    eta = None
    if state == JobState.RUNNING and "step_s" in record:
        eta = max(0.0, float(record["step_s"]) * (total - step) - (now - float(record["progress_at"])))
    started, finished, best = record.get("started_at"), record.get("finished_at"), record.get("best")
    return JobStatus(
        id=record["id"],
        kind=cast(Any, record["kind"]),
        priority=int(record.get("priority", 0)),
        state=state,
        step=step,
        total_steps=total,
        progress=min(1.0, step / total) if total else 0.0,
        eta_s=eta,
        created_at=float(record["created_at"]),
        started_at=float(started) if started else None,
        finished_at=float(finished) if finished else None,
        last_metrics=json.loads(record.get("last_metrics", "{}")),
        best=BestVersion.model_validate_json(best) if best else None,
        reason=record.get("reason"),
        attempts=int(record["attempts"]),
    )
