"""`rlhf jobs`: submit, watch, pause, resume and cancel training jobs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rlhf.cli_requests import RequestFailed, add_priority, asked, checked, read_json, trainer
from rlhf.contracts.jobs import JobKind, JobState, JobStatus
from rlhf.local.console import Console
from rlhf.local.signals import StopSignals

if TYPE_CHECKING:
    from rlhf.clients.trainer import TrainerClient


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """Args: commands, of the command line; where, the options that name a service."""
    jobs = commands.add_parser("jobs", help="submit and follow training jobs").add_subparsers(required=True)
    listed = jobs.add_parser("list", parents=[where], help="newest first")
    listed.add_argument("--state", choices=[state.value for state in JobState], help="only these")
    listed.add_argument("--kind", choices=get_args(JobKind), help="only these")
    listed.add_argument("--limit", type=int, default=100, help="at most so many (default: 100)")
    listed.set_defaults(command=run_list)
    submit = jobs.add_parser("submit", parents=[where], help="submit a job")
    submit.add_argument("file", type=Path, help="the body of POST /jobs, JSON")
    add_priority(submit)
    submit.set_defaults(command=run_submit)
    for name, what, command in (
        ("show", "state, progress and last metrics", run_show),
        ("watch", "a live table until it ends; Ctrl-C stops watching, not the job", run_watch),
        ("logs", "what happened so far, one line each", run_events),
        ("cancel", "stop it at its next check", run_change),
        ("pause", "stop it after its step, until it is resumed", run_change),
        ("resume", "let it go on from its last checkpoint", run_change),
    ):
        parser = jobs.add_parser(name, parents=[where], help=what)
        parser.add_argument("job", help="its id")
        parser.set_defaults(command=command, change=name)


def run_list(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf jobs list`."""
    with trainer(options) as client:
        state = JobState(options.state) if options.state else None
        for job in asked(client.jobs, state, options.kind, limit=options.limit):
            steps = f"{job.step}/{job.total_steps}"
            console.say(
                f"{job.id}  {job.kind:<12}  {job.state:<9}  priority {job.priority:<3}  {steps}  {job.reason or ''}"
            )


def run_submit(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf jobs submit FILE`."""
    from pydantic import RootModel

    from rlhf.contracts.jobs import JobConfig

    config = checked(RootModel[JobConfig], read_json("the job", options.file)).root
    with trainer(options) as client:
        console.say(asked(client.submit, config, priority=options.priority).id)


def run_show(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf jobs show JOB`."""
    with trainer(options) as client:
        console.say(asked(client.job, options.job).model_dump_json(indent=2))


def run_watch(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf jobs watch JOB`."""
    with trainer(options) as client:
        status = watch(client, options.job)
    console.say(f"job {status.id} {status.state} after {status.step} steps")


def watch(client: TrainerClient, job: str) -> JobStatus:
    """Shows a job until it has succeeded. Raises RequestFailed when it ends otherwise."""
    import rich.console

    from rlhf.clients.follow import JobFailed, follow_job
    from rlhf.local.jobview import JobView

    kind = asked(client.job, job).kind
    try:
        with JobView(rich.console.Console(), f"{kind} job {job}") as view:
            status: JobStatus = asked(follow_job, client, job, view, lambda: None)[0]
    except JobFailed as failure:
        raise RequestFailed(str(failure)) from failure
    return status


def run_events(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf jobs logs JOB`."""
    with trainer(options) as client:
        after = None
        while events := asked(client.events, options.job, after=after):
            after = events[-1].id
            for event in events:
                console.say(f"{event.id}  {event.level:<7}  {event.kind:<9}  {event.message}")


def run_change(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf jobs cancel JOB`, `pause` and `resume`."""
    with trainer(options) as client:
        console.say(asked(getattr(client, options.change), options.job).state)
