"""Which versions of an adapter were accepted: what `job@latest` is. One small file a version, beside the versions.

`{store}/adapters/{job}/decisions/{version}.json` is written whole or not at all, and the same decision made again
changes nothing. Every version stays usable by its number, whatever was decided.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from rlhf.artifacts.store import VERSION_PATTERN, ArtifactStore, write_durably
from rlhf.contracts.base import Contract
from rlhf.contracts.errors import Conflict, NotFound

FOLDER = "decisions"
LATEST = "latest"


class Decision(Contract):
    """What was decided on one version; the newest decision counts."""

    version: int = Field(ge=1)
    state: Literal["pending", "accepted", "rejected"] = Field(description="pending: its evaluation has not ended")
    evaluation: str | None = Field(description="the job whose figures decide; null: there were no gates")
    reasons: list[str] = Field(default_factory=list, description="why it was rejected")


def decide(store: ArtifactStore, job: str, decision: Decision) -> None:
    """Records a decision, in the place of an earlier one on the same version; durable when this returns."""
    folder = _folder(store, job)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / f"{decision.version}.json", decision.model_dump_json(indent=1).encode() + b"\n")


def read_decisions(store: ArtifactStore, job: str) -> list[Decision]:
    """What was decided so far, by version.

    Raises:
        Conflict: a file cannot be read; names it.
    """
    paths = [path for path in _folder(store, job).glob("*.json") if re.fullmatch(VERSION_PATTERN, path.stem)]
    return [_read(path) for path in sorted(paths, key=lambda path: int(path.stem))]


def exact_ref(store: ArtifactStore, ref: str) -> str:
    """`job@version` of an adapter's name: the newest accepted version for `job@latest`, any other name as it is.

    Raises:
        NotFound: no version was accepted; says what was decided on the newest, or that nothing was.
        Conflict: a decision cannot be read.
    """
    job, _, version = ref.partition("@")
    if version != LATEST:
        return ref
    decisions, there = read_decisions(store, job), store.versions("adapters", job)
    accepted = [each.version for each in decisions if each.state == "accepted" and each.version in there]
    if accepted:
        return f"{job}@{max(accepted)}"
    raise NotFound(f"no version of {job} has passed its gates: {_why_none(job, decisions, there)}")


def _why_none(job: str, decisions: list[Decision], there: list[int]) -> str:
    if not there:
        return f"nothing is named {job}"
    if not decisions:
        return f"nothing was decided, as before its training has ended; name a version, the newest is {job}@{there[-1]}"
    last = decisions[-1]
    if last.state == "pending":
        return f"{job}@{last.version} waits for evaluation {last.evaluation}, whose state GET /jobs tells"
    return f"{job}@{last.version} was rejected by evaluation {last.evaluation}: {'; '.join(last.reasons)}"


def _folder(store: ArtifactStore, job: str) -> Path:
    return store.published("adapters", job) / FOLDER


def _read(path: Path) -> Decision:
    try:
        return Decision.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise Conflict(f"{path} cannot be read ({error}); delete it, and evaluate that version again") from error
