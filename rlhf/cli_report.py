"""`rlhf report`: a job's report, from the running stack or a folder; and the demo's, again from its report.json."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli_requests import RequestFailed, trainer
from rlhf.contracts.base import ARTIFACT_NAME_PATTERN
from rlhf.contracts.errors import ServiceError
from rlhf.local.console import Console
from rlhf.local.signals import StopSignals

if TYPE_CHECKING:
    from rlhf.evaluation.job_report.records import JobRecords

DEMO = Path("runs/demo")
DEMO_FILE = "report.json"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """Args: commands, of the command line; where, the options that name a service."""
    report = commands.add_parser(
        "report", parents=[where], help="one HTML page about a job: curves, tables, samples, cards, warnings"
    )
    report.add_argument("job", nargs="?", help=f"a job of the running stack, or the folder of a demo (default: {DEMO})")
    report.add_argument("--from", dest="folder", type=Path, help="make it from this folder: a job's, or a demo's")
    report.add_argument("-o", "--output", type=Path, help="the page (default: JOB.html, or report.html in the folder)")
    report.set_defaults(command=run_report)


def run_report(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf report JOB`, `rlhf report --from FOLDER`."""
    from rlhf.evaluation.job_report.page import render_job_report
    from rlhf.evaluation.pages import write_page

    folder = _find_folder(options)
    if folder is not None and (folder == DEMO or (folder / DEMO_FILE).is_file()):
        path = options.output or folder / "report.html"
        _render_demo(folder / DEMO_FILE, path)
    else:
        records = _from_stack(options) if folder is None else _from_folder(folder)
        path = options.output or (Path(f"{records.job}.html") if folder is None else folder / "report.html")
        page = render_job_report(records)
        with _writing(path):
            write_page(page, path)
    console.say(str(path))


def _find_folder(options: argparse.Namespace) -> Path | None:
    """The folder that is meant; None for a job of the running stack.

    A demo's folder needs no `--from`, as before there were reports of jobs, nor does what cannot be a job's name.
    """
    if options.folder is not None:
        if options.job is not None:
            raise RequestFailed(f"both {options.job} and --from {options.folder} are given; name one of them")
        return Path(options.folder)
    if options.job is None:
        return DEMO
    named = Path(options.job)
    is_job = re.fullmatch(ARTIFACT_NAME_PATTERN, options.job) and not (named / DEMO_FILE).is_file()
    return None if is_job else named


def _render_demo(source: Path, path: Path) -> None:
    from rlhf.demo.outcome import render

    try:
        report = json.loads(source.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RequestFailed(
            f"cannot read {source}: {error}; `rlhf demo` writes it at its end; `rlhf report JOB` asks a running stack"
        ) from error
    with _writing(path):
        render(report, path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestFailed(f"cannot write {path}: {error}; name another with -o") from error


def _from_stack(options: argparse.Namespace) -> JobRecords:
    from rlhf.evaluation.job_report.records import RecordsUnreadable, read_records
    from rlhf.evaluation.job_report.shelves import TrainerShelf

    with trainer(options) as client:
        try:
            return read_records(TrainerShelf(client), options.job)
        except ServiceError as error:
            raise RequestFailed(f"trainer: {error}") from error
        except RecordsUnreadable as error:
            raise RequestFailed(str(error)) from error


def _from_folder(folder: Path) -> JobRecords:
    from rlhf.evaluation.job_report.records import RecordsUnreadable, read_records
    from rlhf.evaluation.job_report.shelves import FolderShelf

    if not folder.is_dir():
        raise RequestFailed(f"there is no folder {folder}; a job's is STORE/jobs/JOB, with its config.json")
    try:
        return read_records(FolderShelf(folder), folder.resolve().name)
    except (RecordsUnreadable, OSError) as error:
        raise RequestFailed(str(error)) from error
