"""`/`, the list of jobs, and `/jobs/{job}`, everything about one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from rlhf.contracts.base import ARTIFACT_NAME_PATTERN
from rlhf.contracts.errors import Conflict, NotFound
from rlhf.contracts.jobs import JobEvent, JobState, JobStatus
from rlhf.evaluation.job_curves import draw
from rlhf.evaluation.job_report.page import render_job_report
from rlhf.evaluation.job_report.records import RecordsUnreadable, read_records
from rlhf.evaluation.job_report.shelves import TrainerShelf
from rlhf.evaluation.job_report.told import find_steps, group_events
from rlhf.evaluation.tables import span
from services.console.backends import AtBackends, Backends
from services.console.eventlog import EventLogs
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.responses import mark_repeats

router = APIRouter()
MOST_JOBS = 200
MOST_SAMPLES = 30
MOST_EVENTS = 200


def _job_id(job: str) -> str:
    # Before it becomes part of another service's path.
    if not re.fullmatch(ARTIFACT_NAME_PATTERN, job):
        raise NotFound(f"job {job!r} does not exist; the list has all jobs")
    return job


JobId = Annotated[str, Depends(_job_id)]


@router.get("/")
def list_jobs(request: Request, backends: AtBackends) -> Response:
    """All jobs, newest first."""
    return page(request, "jobs.html.j2", jobs=backends.trainer.jobs(limit=MOST_JOBS))


@router.get("/parts/jobs")
def list_jobs_again(request: Request, backends: AtBackends) -> Response:
    """What changes of the list."""
    return page(request, "jobs_parts.html.j2", jobs=backends.trainer.jobs(limit=MOST_JOBS))


@router.get("/jobs/{job}")
def show_job(request: Request, job: JobId, backends: AtBackends) -> Response:
    """State, curves, alerts, samples and events of a job."""
    return page(request, "job.html.j2", **_view(request, backends, job))


@router.get("/parts/jobs/{job}")
def show_job_again(request: Request, job: JobId, backends: AtBackends) -> Response:
    """What changes of a job's page."""
    return page(request, "job_parts.html.j2", **_view(request, backends, job))


@router.get("/jobs/{job}/report")
def download_report(job: JobId, backends: AtBackends) -> Response:
    """Everything about a job as one file that needs no console: to keep, to send, to print."""
    try:
        page = render_job_report(read_records(TrainerShelf(backends.trainer), job))
    except RecordsUnreadable as error:
        raise Conflict(str(error)) from error
    # As a file: the page has a style of its own, which the console's content policy forbids.
    headers = {"Content-Disposition": f'attachment; filename="{job}.html"'}
    return HTMLResponse(page, headers=headers)


@router.post("/jobs/{job}/pause")
def pause_job(job: JobId, form: PostedForm, backends: AtBackends) -> Response:
    """Pauses it after its step."""
    return _back_to(backends.trainer.pause(job))


@router.post("/jobs/{job}/resume")
def resume_job(job: JobId, form: PostedForm, backends: AtBackends) -> Response:
    """Puts a paused job back into the queue."""
    return _back_to(backends.trainer.resume(job))


@router.post("/jobs/{job}/cancel")
def cancel_job(job: JobId, form: PostedForm, backends: AtBackends) -> Response:
    """Cancels it."""
    return _back_to(backends.trainer.cancel(job))


def _back_to(job: JobStatus) -> Response:
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


def _view(request: Request, backends: Backends, job: str) -> dict[str, Any]:
    logs: EventLogs = request.app.state.logs
    # The state first: when it is final, no event comes after those read next, and the page need not look again.
    status = backends.trainer.job(job)
    events = logs.read(status.id)
    rows = backends.trainer.metrics(status.id).rows
    told = [event for event in events if event.kind != "watchdog" and event.name != "sample"]
    samples = [event for event in events if event.name == "sample"]
    return {
        "job": status,
        "actions": _actions(status.state),
        "curves": draw(status.kind, rows, events),
        "alerts": [_alert(group) for group in group_events(event for event in events if event.kind == "watchdog")],
        "samples": [_sample(event) for event in samples[: -MOST_SAMPLES - 1 : -1]],
        "more_samples": max(0, len(samples) - MOST_SAMPLES),
        "events": told[: -MOST_EVENTS - 1 : -1],
    }


def _actions(state: JobState) -> list[str]:
    """What can be asked of a job in a state."""
    if state.final:
        return []
    return ["resume", "cancel"] if state is JobState.PAUSED else ["pause", "cancel"]


def _alert(group: Sequence[JobEvent]) -> dict[str, Any]:
    """What a watchdog found, by its last event: one may warn at each of a thousand steps."""
    last, steps = group[-1], find_steps(group)
    return {"name": last.name, "level": last.level, "message": last.message, "steps": span(steps) if steps else None}


def _sample(event: JobEvent) -> dict[str, Any]:
    prompt = event.data.get("prompt", "")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {
        "id": event.id,
        "step": event.data.get("step"),
        "turns": turns,
        "pieces": mark_repeats(str(event.data.get("response", ""))),
        "reward": event.data.get("reward"),
        "uncertainty": event.data.get("uncertainty"),
    }
