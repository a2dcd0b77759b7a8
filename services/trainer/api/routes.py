"""`/jobs`: submit, follow, cancel, download."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from rlhf.contracts.errors import ErrorBody
from rlhf.contracts.estimate import Estimate
from rlhf.contracts.jobs import ArtifactFile, JobConfig, JobEvent, JobKind, JobState, JobStatus, MetricsSeries, Priority
from services.trainer.api.downloads import find_file, list_files
from services.trainer.api.dry_run import dry_run as make_estimate
from services.trainer.api.eventstream import stream_events
from services.trainer.api.submission import Desk, resume, submit
from services.trainer.jobs.connection import outages_are_unavailable
from services.trainer.jobs.series import read_series

EVENT_ID = r"^[0-9]{1,20}(-[0-9]{1,20})?$"
router = APIRouter(
    tags=["jobs"],
    responses={status: {"model": ErrorBody} for status in (401, 404, 409, 413, 422, 503)},
)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk)]


@router.post("/jobs", status_code=202, responses={200: {"model": Estimate, "description": "a dry run's answer"}})
def submit_job(
    config: JobConfig,
    response: Response,
    desk: AtDesk,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="the same key with the same request gives the same job"),
    ] = None,
    priority: Annotated[Priority, Query()] = 0,
    dry_run: Annotated[bool, Query(description="check all and answer with an estimate; nothing is queued")] = False,
) -> JobStatus | Estimate:
    """Queues a job. The whole config is checked first, and all its errors are reported at once.

    A dry run answers with memory, work and time in place of a job; it takes no notice of an Idempotency-Key.
    """
    with outages_are_unavailable():
        if dry_run:
            response.status_code = 200
            return make_estimate(desk, config)
        status = submit(desk, config, idempotency_key, priority)
    response.headers["Location"] = f"/jobs/{status.id}"
    return status


@router.get("/jobs")
def list_jobs(
    desk: AtDesk,
    state: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    kind: Annotated[JobKind | None, Query(description="only jobs of this kind")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="at most so many")] = 100,
) -> list[JobStatus]:
    """Jobs, newest first."""
    with outages_are_unavailable():
        return desk.jobs.recent(state, kind, limit)


@router.get("/jobs/{job}")
def get_job(job: str, desk: AtDesk) -> JobStatus:
    """State, step, progress, time left, last metrics, and why it failed."""
    with outages_are_unavailable():
        return desk.jobs.status(job)


@router.get("/jobs/{job}/metrics")
def get_metrics(job: str, desk: AtDesk) -> MetricsSeries:
    """All metrics of all steps, one row a step. NaN and infinities are null."""
    with outages_are_unavailable():
        desk.jobs.status(job)
    return MetricsSeries(rows=read_series(desk.store.job_folder(job)))


@router.get(
    "/jobs/{job}/events",
    response_model=list[JobEvent],
    responses={200: {"content": {"text/event-stream": {}}, "description": "a list, or a stream when asked for"}},
)
def get_events(
    request: Request,
    job: str,
    desk: AtDesk,
    after: Annotated[str | None, Query(pattern=EVENT_ID, description="only events after this id")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="of the list, not of the stream")] = 1000,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header(pattern=EVENT_ID, description="where a stream goes on")] = None,
) -> Response | list[JobEvent]:
    """Events in order, as a JSON list; with `Accept: text/event-stream` as a stream until the job has ended."""
    with outages_are_unavailable():
        desk.jobs.status(job)
        if "text/event-stream" not in accept:
            return desk.jobs.events(job, after, limit)
    start = last_event_id or after
    events = stream_events(desk.jobs, job, start, desk.settings.sse_keepalive_s, request.app.state.stopping)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@router.post("/jobs/{job}/cancel", status_code=202)
def cancel_job(job: str, desk: AtDesk) -> JobStatus:
    """Cancels a queued job at once and a running one at its next check; 409 when it has ended."""
    with outages_are_unavailable():
        return desk.jobs.request_cancel(job)


@router.post("/jobs/{job}/pause", status_code=202)
def pause_job(job: str, desk: AtDesk) -> JobStatus:
    """Pauses a queued job at once and a running one after the step it is in; its learner is free for other jobs."""
    with outages_are_unavailable():
        return desk.jobs.request_pause(job)


@router.post("/jobs/{job}/resume", status_code=202)
def resume_job(job: str, desk: AtDesk) -> JobStatus:
    """Puts a paused job back into the queue; it goes on from its last checkpoint. 409 when it has ended."""
    with outages_are_unavailable():
        return resume(desk, job)


@router.get("/jobs/{job}/artifacts")
def get_artifacts(job: str, desk: AtDesk) -> list[ArtifactFile]:
    """The job's files, and under adapters/ and reward_models/ what it published."""
    with outages_are_unavailable():
        desk.jobs.status(job)
    return list_files(desk.store, job)


@router.get("/jobs/{job}/artifacts/{path:path}", response_class=FileResponse)
def download_artifact(job: str, path: str, desk: AtDesk) -> FileResponse:
    """One of the job's files."""
    with outages_are_unavailable():
        desk.jobs.status(job)
    file = find_file(desk.store, job, path)
    return FileResponse(file, media_type="application/octet-stream", filename=file.name)
