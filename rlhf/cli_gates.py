"""Gates on the command line: `--gate "FIGURE <= NUMBER"`, and what became of them."""

from __future__ import annotations

import argparse
import json

from rlhf.cli_jobs import watch
from rlhf.cli_requests import RequestFailed, asked, trainer
from rlhf.contracts.gates import GatesOutcome, read_gates
from rlhf.local.console import Console

REPORT = "evaluation.json"


def gate_options(command: argparse.ArgumentParser, more: str) -> None:
    """Adds `--gate`. Args: command, that gets it; more, what it means there."""
    command.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar='"FIGURE <= NUMBER"',
        help=f'such as "xstest/change/over_refusal <= 0.05", also <, >=, >; may be given several times; {more}',
    )


def gates_of(options: argparse.Namespace) -> dict[str, str]:
    """What `--gate` says. Raises RequestFailed for what is no gate, or named twice."""
    try:
        return read_gates(options.gate)
    except ValueError as error:
        raise RequestFailed(f"--gate {error}") from error


def wait_for_gates(options: argparse.Namespace, job: str, console: Console) -> None:
    """Watches an evaluation to its end and says which gates held.

    Raises:
        RequestFailed: one failed, or the evaluation did.
    """
    with trainer(options) as client:
        watch(client, job)
        report = json.loads(asked(client.artifact, job, REPORT))
    outcome = GatesOutcome.model_validate(report["gates"])
    for each in outcome.results:
        console.say(f"{'held  ' if each.held else 'FAILED'}  {each.describe()}")
    if not outcome.passed:
        raise RequestFailed(f"{len(outcome.failed)} of {len(outcome.results)} gates failed")
