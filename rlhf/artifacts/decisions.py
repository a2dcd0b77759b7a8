"""Which versions of an adapter were accepted: what `job@latest` is. One small file a version, beside the versions.

`{store}/adapters/{job}/decisions/{version}.json` is written whole or not at all, and the same decision made again
changes nothing. Every version stays usable by its number, whatever was decided.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from rlhf.artifacts.folders import write_durably
from rlhf.artifacts.store import VERSION_PATTERN, ArtifactStore
from rlhf.contracts.base import Contract
from rlhf.contracts.errors import Conflict, NotFound

FOLDER = "decisions"
LATEST = "latest"
NAME = re.compile(rf"(?:{VERSION_PATTERN})\.json")
CURE = "delete it, and evaluate that version again"


class Decision(Contract):
    """What was decided on one version; the newest decision counts."""

    version: int = Field(ge=1)
    state: Literal["pending", "accepted", "rejected"] = Field(description="pending: its evaluation has not ended")
    evaluation: str | None = Field(description="the job whose figures decide; null: there were no gates")
    reasons: list[str] = Field(default_factory=list, description="why it was rejected")


def decide(store: ArtifactStore, job: str, decision: Decision) -> None:
    """Records a decision, in the place of an earlier one on the same version; durable when this returns.

    Raises:
        RemoteAway: it is recorded here, and not in the remote copy; decide again.
    """
    folder, name = _folder(store, job), f"{decision.version}.json"
    folder.mkdir(parents=True, exist_ok=True)
    text = decision.model_dump_json(indent=1).encode() + b"\n"
    write_durably(folder / name, text)
    if store.remote is not None:
        store.remote.put(f"adapters/{job}/{FOLDER}/{name}", text)


def read_decisions(store: ArtifactStore, job: str) -> list[Decision]:
    """What was decided so far, by version; where nothing was decided here, what the remote copy knows.

    Raises:
        Conflict: a file cannot be read; names it.
        RemoteAway: the remote copy cannot be asked.
    """
    folder = _folder(store, job)
    if folder.is_dir() or store.remote is None:
        paths = [path for path in folder.glob("*.json") if NAME.fullmatch(path.name)]
        place, texts = str(folder), {path.name: _bytes(path) for path in paths}
    else:
        key = f"adapters/{job}/{FOLDER}"
        place, found = f"{store.remote.url}/{key}", store.remote.read_all(key)
        texts = {name: text for name, text in found.items() if NAME.fullmatch(name)}
    return [_read(f"{place}/{name}", texts[name]) for name in sorted(texts, key=lambda name: int(name[:-5]))]


def exact_ref(store: ArtifactStore, ref: str) -> str:
    """`job@version` of an adapter's name: the newest accepted version for `job@latest`, any other name as it is.

    Raises:
        NotFound: no version was accepted; says what was decided on the newest, or that nothing was.
        Conflict: a decision cannot be read.
        RemoteAway: the remote copy cannot be asked.
    """
    job, _, version = ref.partition("@")
    if version != LATEST:
        return ref
    decisions = read_decisions(store, job)
    for each in reversed(decisions):
        if each.state == "accepted" and store.has("adapters", job, each.version):
            return f"{job}@{each.version}"
    why = _why_none(job, decisions, store.versions("adapters", job))
    raise NotFound(f"no version of {job} has passed its gates: {why}")


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


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Conflict(f"{path} cannot be read ({error}); {CURE}") from error


def _read(path: str, text: bytes) -> Decision:
    try:
        return Decision.model_validate_json(text)
    except ValidationError as error:
        raise Conflict(f"{path} cannot be read ({error}); {CURE}") from error
