"""Where jobs' files lie: in folders of the artifact store, or behind the job API of a running stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from rlhf.clients.trainer import TrainerClient
from rlhf.contracts.errors import NotFound
from rlhf.contracts.jobs import JobEvent, JobRecord, JobState, JobStatus
from rlhf.evaluation.job_report.records import EVALUATION, MOST_BYTES, MOST_EVALUATIONS, FileTooLarge, RecordsUnreadable

_PUBLISHED = ("adapters", "reward_models")
PAGE = 1000


class FolderShelf:
    """The folders of jobs, with `adapters/` and `reward_models/` beside their parent, as the artifact store has them.

    A folder that was copied out of its store tells of its job alone.
    """

    def __init__(self, folder: Path) -> None:
        """Args: folder, of one job."""
        self._jobs = folder.resolve().parent
        self._records: dict[str, JobRecord | None] = {}

    def read(self, job: str, path: str) -> bytes | None:
        """A file; None where there is none."""
        file = self._root(job, path)
        if not file.is_file():
            return None
        if file.stat().st_size > MOST_BYTES:
            raise FileTooLarge
        return file.read_bytes()

    def paths(self, job: str) -> list[str]:
        """Paths of what it published, and of its folder's own files, not of folders in it."""
        own = [path.name for path in (self._jobs / job).glob("*") if path.is_file()]
        roots = {kind: self._jobs.parent / kind / job for kind in _PUBLISHED}
        published = [f"{kind}/{path.relative_to(root)}" for kind, root in roots.items() for path in root.glob("*/*")]
        return own + published

    def status(self, job: str) -> JobStatus | None:
        """How it ended."""
        record = self._record(job)
        return None if record is None else record.status

    def events(self, job: str) -> list[JobEvent] | None:
        """Until its end, without its progress."""
        record = self._record(job)
        return None if record is None else record.events

    def evaluations(self) -> Iterator[str]:
        """Those whose report is there, the newest first."""
        files = self._jobs.glob(f"*/{EVALUATION}")
        return (file.parent.name for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True))

    def _root(self, job: str, path: str) -> Path:
        first, _, rest = path.partition("/")
        return self._jobs.parent / first / job / rest if first in _PUBLISHED else self._jobs / job / path

    def _record(self, job: str) -> JobRecord | None:
        if job not in self._records:
            file = self._jobs / job / JobRecord.FILE
            content = file.read_bytes() if file.is_file() else None
            try:
                self._records[job] = None if content is None else JobRecord.model_validate_json(content)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "it"
                raise RecordsUnreadable(
                    f"{JobRecord.FILE} of {job} is not a job's record: {where}: {first['msg']}; was it changed, or "
                    "written by another version?"
                ) from error
        return self._records[job]


class TrainerShelf:
    """The job API."""

    def __init__(self, client: TrainerClient) -> None:
        """Args: client, which stays the caller's to close."""
        self._client = client
        self._sizes: dict[str, dict[str, int]] = {}

    def read(self, job: str, path: str) -> bytes | None:
        """A file; None where it is not listed."""
        size = self._listed(job).get(path)
        if size is None:
            return None
        if size > MOST_BYTES:
            raise FileTooLarge
        return self._client.artifact(job, path)

    def paths(self, job: str) -> list[str]:
        """Paths of its files."""
        return sorted(self._listed(job))

    def status(self, job: str) -> JobStatus:
        """How it stands.

        Raises:
            NotFound: there is no such job.
        """
        return self._client.job(job)

    def events(self, job: str) -> list[JobEvent]:
        """So far, without its progress, which the series has."""
        found: list[JobEvent] = []
        after = None
        while page := self._client.events(job, after=after, limit=PAGE):
            after = page[-1].id
            found += [event for event in page if event.kind != "progress"]
        return found

    def evaluations(self) -> Iterator[str]:
        """Those that succeeded."""
        return (job.id for job in self._client.jobs(JobState.SUCCEEDED, "evaluation", limit=MOST_EVALUATIONS))

    def _listed(self, job: str) -> dict[str, int]:
        if job not in self._sizes:
            try:
                files = self._client.artifacts(job)
            except NotFound:
                # A job that another one names may be gone by now.
                files = []
            self._sizes[job] = {file.path: file.bytes for file in files}
        return self._sizes[job]
