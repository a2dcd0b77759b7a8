"""Folders of jobs in an artifact store, written by the code that writes them in production."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rlhf.artifacts.folders import write_durably
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.jobs import JobConfig, JobEvent, JobRecord, JobStatus
from rlhf.evaluation.job_report.page import render_job_report
from rlhf.evaluation.job_report.records import read_records
from rlhf.evaluation.job_report.shelves import FolderShelf
from services.trainer.jobs.series import SeriesWriter
from tests.html_page import Page


class Job:
    """What a worker's code sees of the trainer; its files are real."""

    def __init__(self, store: ArtifactStore, job: str, config: dict[str, Any]) -> None:
        self.id, self.store, self.folder = job, store, store.job_folder(job)
        self.config = TypeAdapter(JobConfig).validate_python(config)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_durably(self.folder / "config.json", self.config.model_dump_json().encode())
        self._series = SeriesWriter(self.folder)
        self._events: list[JobEvent] = []

    def progress(self, step: int, total: int, metrics: dict[str, Any]) -> None:
        self._series.write({**metrics, "step": step, "time": 0.0})

    def event(self, name: str, message: str, *, kind: str = "log", level: str = "info", data: Any = None) -> None:
        number = len(self._events)
        event = {"id": f"{number}-0", "time": 0.0, "kind": kind, "level": level, "name": name, "message": message}
        self._events.append(JobEvent(**event, data=data or {}))

    def raise_if_stopped(self) -> None: ...

    def raise_if_lost(self) -> None: ...

    def end(self, state: str, reason: str | None = None, step: int = 0, total: int = 1) -> None:
        """The record as services.trainer.jobs.keeping writes it; tests/contract/console tests that one."""
        status = JobStatus(
            id=self.id,
            kind=self.config.kind,
            state=state,
            step=step,
            total_steps=total,
            progress=step / total,
            eta_s=None,
            created_at=0.0,
            started_at=10.0,
            finished_at=100.0,
            last_metrics={},
            best=None,
            reason=reason,
            attempts=1,
        )
        record = JobRecord(status=status, events=self._events)
        write_durably(self.folder / JobRecord.FILE, record.model_dump_json().encode())


@pytest.fixture
def new_job(tmp_path: Path) -> Callable[..., Job]:
    store = ArtifactStore(tmp_path / "store")
    return lambda job, config: Job(store, job, config)


def report_of(job: Job) -> tuple[Page, str]:
    """The page made from the job's folder."""
    html = render_job_report(read_records(FolderShelf(job.folder), job.id))
    return Page(html), html
