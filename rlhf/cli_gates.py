"""Gates on the command line: `--gate "FIGURE <= NUMBER"`, and what became of them."""

from __future__ import annotations

import argparse
import json
import re

from rlhf.cli_jobs import watch
from rlhf.cli_requests import RequestFailed, asked, trainer
from rlhf.local.console import Console

_GATE = re.compile(r"\s*([^<>=]+?)\s*([<>=].*)", re.DOTALL)
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


def read_gates(texts: list[str]) -> dict[str, str]:
    """Figure to comparison, as a job takes them. Raises RequestFailed for what is no gate, or named twice."""
    gates: dict[str, str] = {}
    for text in texts:
        match = _GATE.fullmatch(text)
        if match is None:
            raise RequestFailed(f"--gate {text!r} is no gate; write a figure, a comparison and a number: a/b <= 0.05")
        if match[1] in gates:
            raise RequestFailed(f"--gate {match[1]} is given twice; a figure has one gate")
        gates[match[1]] = match[2].strip()
    return gates


def wait_for_gates(options: argparse.Namespace, job: str, console: Console) -> None:
    """Watches an evaluation to its end and says which gates held.

    Raises:
        RequestFailed: one failed, or the evaluation did.
    """
    from rlhf.contracts.gates import GatesOutcome

    with trainer(options) as client:
        watch(client, job)
        report = json.loads(asked(client.artifact, job, REPORT))
    outcome = GatesOutcome.model_validate(report["gates"])
    for each in outcome.results:
        console.say(f"{'held  ' if each.held else 'FAILED'}  {each.describe()}")
    if not outcome.passed:
        raise RequestFailed(f"{len(outcome.failed)} of {len(outcome.results)} gates failed")
