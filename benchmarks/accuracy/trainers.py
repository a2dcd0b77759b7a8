"""Who trains in a cell: each in a process of its own, on the same pairs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.cells import Cell, choose_pairs, split_rows
from benchmarks.generation.peers import Environment, ensure
from benchmarks.servers import environment
from rlhf.evaluation.preferences import (
    accuracy_by_quartile,
    auroc,
    calibration_error,
    fit_temperature,
    pairwise_accuracy,
    wilson_interval,
)
from rlhf.local.machine import physical_cores
from rlhf.local.processes import run_tool

OURS, TRL = "ours", "trl"
PEERS = Environment(Path(".venv-peers-rm"))
INSTALL = 'make bench-reward-accuracy ARGS="--install-peers"'


class TrainerFailed(RuntimeError):
    """A cell's process ended with an error; has its last lines."""


def install_peers() -> None:
    """Makes TRL's environment unless it is there. Raises subprocess.CalledProcessError: pip has said why."""
    # Our own versions of what both use, so that backbone and kernels are the same.
    ensure(PEERS, lambda peers: peers.install("-c", "constraints.txt", "trl==1.16.0", "peft"))


def train(folder: Path, cell: Cell) -> dict[str, Any]:
    """The figures of one cell.

    Args:
        folder: of the data sets.
        cell: to be done.

    Raises:
        TrainerFailed: its process could not.
        StopRequested: a signal came; the process is gone.
    """
    config = cell.config(choose_pairs(folder, cell))
    with tempfile.TemporaryDirectory(prefix="rlhf-bench-") as temporary:
        work = Path(temporary) / "work.json"
        if cell.who == OURS:
            work.write_text(config.model_dump_json())
            return _call([sys.executable, "-m", "benchmarks.accuracy.ours", cell.model, str(work)])
        rows = split_rows(config)
        settings = {"model": cell.model, "seed": cell.seed, "r": config.lora_r, "epochs": cell.trl_epochs}
        work.write_text(json.dumps(settings | rows))
        program = Path(__file__).with_name("trl_program.py")
        told = _call([PEERS.program("python"), str(program), str(work)])
    return {"train_pairs": len(rows["train"]), **describe_single(told["validation"], told["evaluation"]), **told}


def describe_single(validation: Sequence[float], evaluation: Sequence[float]) -> dict[str, Any]:
    """Figures of one model from its differences, as ours are made. How close its vote is, is its uncertainty."""
    differences = np.asarray(evaluation)
    accuracy, temperature = pairwise_accuracy(differences), fit_temperature(np.asarray(validation))
    closeness = -np.abs(differences)
    return {
        "eval_pairs": len(differences),
        "accuracy_ensemble": accuracy,
        "accuracy_ensemble_ci95": list(wilson_interval(accuracy, len(differences))),
        "temperature": temperature,
        "ece": calibration_error(differences, temperature=temperature),
        "ece_before_temperature": calibration_error(differences),
        "auroc_uncertainty": auroc(closeness, differences <= 0),
        "accuracy_by_uncertainty_quartile": accuracy_by_quartile(differences, closeness),
    }


def _call(command: Sequence[str]) -> dict[str, Any]:
    """The last line of JSON that a program prints, among what its libraries say."""
    try:
        output = run_tool(command, environment(physical_cores()))
    except subprocess.CalledProcessError as error:
        raise TrainerFailed("\n".join(error.output.splitlines()[-15:])) from error
    return dict(json.loads(next(line for line in reversed(output.splitlines()) if line.startswith('{"'))))
