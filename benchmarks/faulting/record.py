"""What a job left behind, and whether each of its batches was learned exactly once. Read from files and from Redis.

No one witness suffices. A step done twice shows in AdamW's own count of updates, in the weights and in the rows of
metrics; a batch lost or doubled on its way shows in Redis' append-only file; a batch learned in another's place shows
in the step's row, which is compared with the undisturbed run's.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faulting.journal import Journal, read_journal
from rlhf.artifacts.folders import sha256
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.jobs import JobStatus, PpoJobConfig
from services.trainer.jobs.series import read_series

TIMES = ("_s", "tokens_per_s")
"""Ends of the names of metrics that tell how long something took."""


@dataclass(frozen=True)
class Record:
    """What is left of a job.

    Attributes:
        status: as the API told it last.
        seconds: from submission to the end.
        journal: of its batches.
        history: the checkpoint's row of each step, without times.
        shown: steps of metrics.jsonl.
        updates: AdamW's counts, one of each parameter.
        weights: sha256 of each step's adapter, by version.
        final: sha256 of all trained parameters at the end.
    """

    status: JobStatus
    seconds: float
    journal: Journal
    history: list[dict[str, Any]]
    shown: list[int]
    updates: set[int]
    weights: dict[int, str]
    final: str


def read_record(status: JobStatus, seconds: float, root: Path, journal: Path) -> Record:
    """Reads it. Args: root, of the artifact store; journal, the folder of Redis' append-only files."""
    from safetensors.torch import load_file

    store = ArtifactStore(root)
    folder = store.job_folder(status.id)
    newest = max((folder / "checkpoints").glob("step-*"), default=None)
    history, updates, final = [], set[int](), ""
    if newest is not None:
        rows = json.loads((newest / "state.json").read_text())["history"]
        history = [{name: value for name, value in row.items() if not name.endswith(TIMES)} for row in rows]
        moments = load_file(newest / "optimizer.safetensors")
        updates = {int(value) for name, value in moments.items() if name.endswith(".step")}
        final = sha256(newest / "parameters.safetensors")
    weights = {
        version: sha256(store.resolve("adapters", f"{status.id}@{version}") / "adapter_model.safetensors")
        for version in store.versions("adapters", status.id)
    }
    shown = [row["step"] for row in read_series(folder)]
    return Record(status, seconds, read_journal(journal, status.id), history, shown, updates, weights, final)


def find_faults(record: Record, config: PpoJobConfig, undisturbed: Record) -> tuple[int, list[str]]:
    """Batches that were lost or doubled, and everything that is not as it must be, in words."""
    rollout, update, steps = config.rollout, config.update, range(1, config.steps + 1)
    ids = [f"{record.status.id}:{step - 1}:{shard}" for step in steps for shard in range(rollout.shards)]
    added = record.journal.added
    wrong = [name for name in {*ids, *added} if added[name] != (name in ids)]
    faults = [f"batch {name} was added {added[name]} times" for name in sorted(wrong)]
    faults += [f"batch {name} was never acknowledged" for name in record.journal.kept]
    suspects = {*wrong, *record.journal.kept}

    odd_steps = {step for step in {*steps, *record.shown} if Counter(record.shown)[step] != (step in steps)}
    odd_steps |= set(steps) ^ set(record.weights)
    samples = rollout.prompts_per_step * rollout.samples_per_prompt
    odd_steps |= {
        step
        for step, row, other in zip(steps, record.history, undisturbed.history, strict=False)
        if row["samples"] + row["failures"] != samples or not _alike(row, other)
    }
    faults += [f"step {step} is missing, doubled or of other batches" for step in sorted(odd_steps)]
    suspects |= {f"{record.status.id}:{step - 1}:{shard}" for step in odd_steps for shard in range(rollout.shards)}

    expected = config.steps * update.epochs * update.minibatches
    if record.updates != {expected} or len(record.history) != config.steps:
        seen = f"{sorted(record.updates)} updates and {len(record.history)} rows"
        faults.append(f"the last checkpoint holds {seen}, not {expected} and {config.steps}")
        off = max((abs(count - expected) for count in record.updates), default=expected)
        missing = -(-off // (update.epochs * update.minibatches)) * rollout.shards
        return max(len(suspects), missing, 1), faults
    return len(suspects), faults


def _alike(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a step learned from the same batches: same tokens, same scores up to rounding."""
    close = abs(row["score_mean"] - other["score_mean"]) < 1e-3 * max(1.0, other["reward_std"])
    return bool(row["tokens"] == other["tokens"] and row["samples"] == other["samples"] and close)
