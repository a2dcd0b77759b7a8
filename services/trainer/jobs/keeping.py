"""Keeps the record and events of a job that has ended as `record.json` in its folder: Redis forgets them in time."""

from __future__ import annotations

import logging
from pathlib import Path

from rlhf.artifacts.folders import write_durably
from rlhf.contracts.errors import NotFound
from rlhf.contracts.jobs import JobRecord
from services.trainer.jobs.connection import REDIS_OUTAGES
from services.trainer.jobs.store import MAX_EVENTS, JobStore

log = logging.getLogger(__name__)


def keep_record(jobs: JobStore, folder: Path, job: str) -> None:
    """Writes the file, whole or not at all; what keeps it from being written is logged, since the job has ended.

    Args:
        jobs: the records.
        folder: of the job.
        job: its id.
    """
    try:
        # Redis trims a stream roughly, so it may hold some more.
        events = [event for event in jobs.events(job, None, 2 * MAX_EVENTS) if event.kind != "progress"]
        record = JobRecord(status=jobs.status(job), events=events)
        write_durably(folder / JobRecord.FILE, record.model_dump_json(indent=1).encode() + b"\n")
    except (OSError, NotFound, *REDIS_OUTAGES) as error:
        log.warning("the job's record was not kept in its folder", extra={"job": job, "error": str(error)})
