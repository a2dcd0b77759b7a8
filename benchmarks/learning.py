"""`make bench-learning`: what PPO does to the judge that it sees and to the judge that it does not see, beyond its KL.

The demo's task, trained far enough to over-optimise, for each seed against three proxies: one reward model, the mean of
five, the mean less one deviation of their disagreement. The last two share one bundle a seed. Every ten steps the
policy answers the held-out prompts, which are scored by the proxy and by the rubric (gold), and both are drawn against
KL. Everything runs through the services of `make serve`, over HTTP.

    gold     the rubric's score in [0, 1]; 95 %: over prompts. It judges form, not truth
    gain     gold at the end less gold of the base model, paired by prompt
    proxy    what the run maximises, in standard deviations of reference responses; the penalty on responses that the
             length limit cut is PPO's too, and not in it. Proxies of different bundles have different scales
    KL       of PPO's own samples at the checkpoint, nats per sequence, averaged over five steps

A finished cell is a file in OUTPUT/cells; a run that is killed goes on in the middle of a cell, where its job was. Any
result is reported; only what could not be run makes it fail. The plot is OUTPUT/curves.svg.

make bench-learning ARGS="--seeds 0 1 2 --variants single mean penalised"
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.overoptimisation.curves import compare_ends, summarise_run, summarise_variants
from benchmarks.overoptimisation.design import PRESET, VARIANTS, Cell, make_cells
from benchmarks.overoptimisation.plot import draw_curves
from benchmarks.overoptimisation.results import read_result, write_result
from benchmarks.overoptimisation.running import Runner
from benchmarks.overoptimisation.table import render_curve, render_summary
from rlhf.clients.follow import JobFailed
from rlhf.contracts.errors import ServiceError
from rlhf.demo.preset import PresetInvalid
from rlhf.local.processes import ServiceFailed
from rlhf.local.runfolder import FolderBusy, claimed
from rlhf.local.signals import StopRequested, StopSignals
from rlhf.local.stack import Stack, StackOptions
from rlhf.local.weights import ensure_smollm2

Result = dict[str, Any]


def main() -> int:
    """Runs what is not done yet and prints; returns 1 when something could not be run."""
    options = make_parser().parse_args()
    with StopSignals() as signals:
        try:
            model = options.model or str(ensure_smollm2(say=say, signals=signals))
            cells = make_cells(options.preset, options.seeds, options.variants, steps=options.steps)
            with claimed(options.output.resolve()) as folder:
                failed = run_missing(cells, model, folder, signals)
                return report(cells, model, folder, failed)
        except PresetInvalid as error:
            say(str(error))
            return 2
        except (FolderBusy, ServiceFailed, ServiceError) as error:
            say(f"{error}\nwhat is finished is kept; the same command goes on from there")
            return 1
        except StopRequested as stop:
            return stop.exit_code


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--steps", type=int, help="of PPO (default: the preset's)")
    parser.add_argument("--preset", type=Path, default=PRESET, help="settings of jobs and evaluation, as the demo's")
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--output", type=Path, default=Path("runs/bench-learning"), help="folder of everything")
    return parser


def run_missing(cells: list[Cell], model: str, folder: Path, signals: StopSignals) -> dict[str, str]:
    """Runs the cells that have no result yet; returns why those failed that could not be run."""
    missing = [cell for cell in cells if read_result(folder / "cells", cell.name, cell.digest(model)) is None]
    failed: dict[str, str] = {}
    if not missing:
        return failed
    with Stack(StackOptions(folder=folder / "stack", model=model), signals, say) as stack:
        runner = Runner(stack, say)
        for cell in missing:
            try:
                result = runner.run(cell)
            except JobFailed as failure:
                failed[cell.name] = str(failure)
                say(f"{cell.name}: {failure}")
                continue
            write_result(folder / "cells", cell.name, cell.digest(model), result)
            say(render_curve(result))
            report(cells, model, folder, failed)
    return failed


def report(cells: list[Cell], model: str, folder: Path, failed: dict[str, str]) -> int:
    """Draws and prints what is finished so far; the line of JSON comes last. Returns the exit code."""
    found = [read_result(folder / "cells", cell.name, cell.digest(model)) for cell in cells]
    results = [result for result in found if result is not None]
    runs = [summarise_run(result) for result in results]
    variants = summarise_variants(runs)
    if results:
        (folder / "curves.svg").write_text(draw_curves(results), encoding="utf-8")
        print(render_summary(runs, variants))
        print(f"plot: {folder / 'curves.svg'}")
    against = compare_ends(runs, "penalised", "single")
    figures = {
        "runs": runs,
        "means": variants,
        "every_run_improves_gold": all(run["gold_gain"] > 0 for run in runs) if runs else None,
        "penalised_less_single": against,
        "penalised_not_below_single": None if against is None else against["mean"] >= 0,
        "missing": len(cells) - len(results),
        "failed": failed,
    }
    print(json.dumps(figures), flush=True)
    return 1 if failed else 0


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
