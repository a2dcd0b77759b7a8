"""What is known of a job, as its report needs it. What is not known is None or empty; nothing is made up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from rlhf.artifacts.store import listed_versions
from rlhf.contracts.jobs import JobEvent, JobKind, JobStatus

CONFIG, SERIES, FIGURES, DATA, EVALUATION = (
    "config.json",
    "metrics.jsonl",
    "metrics.json",
    "data.json",
    "evaluation.json",
)
"""Files of a job's folder."""
CARD = "reward_models/1/README.md"
"""By the path that the job API lists it under."""
MOST_BYTES = 64 << 20
"""Larger files are left out, and the report says so: a page needs no more than a summary of them."""
MOST_EVALUATIONS = 30
"""Evaluation jobs that are looked through for those of a PPO job, newest first."""

Figures = Mapping[str, Any]


class RecordsUnreadable(RuntimeError):
    """A job's report cannot be made; the message says which file is wrong and how."""


class FileTooLarge(Exception):
    """A file is over MOST_BYTES."""


class Shelf(Protocol):
    """Where jobs' files lie. Paths are as the job API lists them: `config.json`, `reward_models/1/README.md`."""

    def read(self, job: str, path: str) -> bytes | None:
        """A file; None where there is none, or no such job.

        Raises:
            FileTooLarge: it is.
        """

    def paths(self, job: str) -> list[str]:
        """Paths of a job's files; none of a job that does not exist."""

    def status(self, job: str) -> JobStatus | None:
        """How the job stands; None where nobody wrote it down."""

    def events(self, job: str) -> list[JobEvent] | None:
        """All events in order; None where nobody wrote them down."""

    def evaluations(self) -> Iterator[str]:
        """Evaluation jobs that have ended, newest first."""


@dataclass(frozen=True)
class RewardModelRecords:
    """What a reward model is worth: metrics.json, data.json and the card in its bundle, each None where absent."""

    job: str
    figures: Figures | None
    data: Figures | None
    card: str | None


@dataclass(frozen=True)
class JobRecords:
    """One job.

    Attributes:
        job: its id.
        config: as it was submitted; empty where it is missing or too large.
        kind: of it.
        status: None where only the folder is known and the job has not ended.
        rows: of metrics.jsonl, one a step.
        events: None as status.
        reward_model: of a reward-model job its own, of a PPO job the one that scored its samples.
        evaluations: evaluation.json: of an evaluation job its own, of a PPO job those of its adapters, newest first.
        adapter: the adapter_config.json of the newest version.
        left_out: files that are too large.
    """

    job: str
    kind: JobKind
    config: Figures
    status: JobStatus | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    events: list[JobEvent] | None = None
    reward_model: RewardModelRecords | None = None
    evaluations: list[Figures] = field(default_factory=list)
    adapter: Figures | None = None
    left_out: list[str] = field(default_factory=list)


def read_records(shelf: Shelf, job: str) -> JobRecords:
    """Everything that a report shows of a job.

    Args:
        shelf: where its files lie.
        job: its id.

    Raises:
        RecordsUnreadable: there is no such job on the shelf, or a file of it is not what it should be.
        ServiceError: a shelf behind a service could not be reached, or knows no such job.
    """
    # The state first: when it is final, all files and events are there.
    status, reader = shelf.status(job), _Reader(shelf)
    config = reader.json(job, CONFIG)
    kind = status.kind if status is not None else (config or {}).get("kind")
    if kind not in ("ppo", "reward_model", "evaluation"):
        known = "no config.json" if config is None else f"kind {kind!r} in its config.json"
        raise RecordsUnreadable(f"{job} is no job's name here: there is {known}; name the folder or id of a job")
    return JobRecords(
        job=job,
        kind=cast(JobKind, kind),
        config=config or {},
        status=status,
        rows=reader.rows(job),
        events=shelf.events(job),
        reward_model=_find_reward_model(reader, job, kind, config or {}),
        evaluations=_find_evaluations(reader, job, kind),
        adapter=_find_adapter(reader, job) if kind == "ppo" else None,
        left_out=reader.left_out,
    )


def _find_reward_model(reader: _Reader, job: str, kind: str, config: Figures) -> RewardModelRecords | None:
    if kind == "evaluation":
        return None
    owner = job if kind == "reward_model" else str(config.get("reward_model", "")).partition("@")[0]
    if not owner:
        return None
    card = reader.bytes(owner, CARD)
    text = None if card is None else card.decode("utf-8", "replace")
    return RewardModelRecords(owner, reader.json(owner, FIGURES), reader.json(owner, DATA), text)


def _find_evaluations(reader: _Reader, job: str, kind: str) -> list[Figures]:
    if kind == "evaluation":
        own = reader.json(job, EVALUATION)
        return [] if own is None else [own]
    if kind != "ppo":
        return []
    found = []
    for number, other in enumerate(reader.shelf.evaluations()):
        if number == MOST_EVALUATIONS:
            break
        told = reader.json(other, EVALUATION)
        if told is not None and str(told.get("adapter", "")).partition("@")[0] == job:
            found.append(told)
    return found


def _find_adapter(reader: _Reader, job: str) -> Figures | None:
    versions = listed_versions(reader.shelf.paths(job), "adapters")
    return reader.json(job, f"adapters/{versions[-1]}/adapter_config.json") if versions else None


class _Reader:
    """Reads files of a shelf, and remembers which were too large."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.left_out: list[str] = []

    def bytes(self, job: str, path: str) -> bytes | None:
        try:
            return self.shelf.read(job, path)
        except FileTooLarge:
            self.left_out.append(f"{path} of {job}")
            return None

    def json(self, job: str, path: str) -> Figures | None:
        content = self.bytes(job, path)
        if content is None:
            return None
        found = _parse(content, f"{path} of {job}")
        if not isinstance(found, Mapping):
            raise RecordsUnreadable(f"{path} of {job} holds a {type(found).__name__}, not an object; was it changed?")
        return found

    def rows(self, job: str) -> list[dict[str, Any]]:
        """The rows of the series; a last line that is being written has no end yet and is left out."""
        lines = (self.bytes(job, SERIES) or b"").split(b"\n")[:-1]
        return [_parse(line, f"{SERIES} of {job}") for line in lines]


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise RecordsUnreadable(f"{where} is not JSON: {error}; was it changed or cut off?") from error
