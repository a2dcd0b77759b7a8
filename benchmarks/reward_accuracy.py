"""`make bench-reward-accuracy`: our reward ensemble beside TRL's RewardTrainer, on real preferences.

Everyone gets the same backbone, the same LoRA rank and the same pairs, split by prompt: of `size` pairs most train, the
rest validate (our early stopping; everyone's temperature), others measure. TRL trains by its own recipe, for the one
epoch of its documented example unless --trl-epochs says otherwise (transformers' default is 3).

    accuracy   of held-out pairs, the mean over seeds; 95 %: of one seed, the mean of their intervals
    length     preferring by length alone, in the direction that training pairs prefer
    ECE        of the confidence in the own vote, before and after the temperature
    mistakes   AUROC of a pair's uncertainty for the wrong ones; a single model's is how close its vote is
    gap        accuracy of the most certain quarter less that of the least certain, points
    novelty    AUROC of a response's novelty for degenerate text; std: of the deviation between members

A finished cell is a file in runs/bench-reward-accuracy, and is not done again.

make bench-reward-accuracy ARGS="--install-peers"     once: TRL's environment
make bench-reward-accuracy ARGS="--seeds 0 1 2 --sizes 500 1000 1800"
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.accuracy.cells import Cell, read_result, write_result
from benchmarks.accuracy.table import Figures, render, summarise
from benchmarks.accuracy.trainers import INSTALL, OURS, PEERS, TRL, TrainerFailed, install_peers, train
from rlhf.local.signals import StopRequested

DATA_SETS = ("hh-rlhf-harmless", "alpaca-eval-gpt4")


def main() -> int:
    """Trains what is not done yet and prints; returns 1 when a trainer failed."""
    options = make_parser().parse_args()
    if options.install_peers:
        install_peers()
        return 0
    from rlhf.local.weights import ensure_smollm2

    model = options.model or str(ensure_smollm2(say=lambda line: print(line, file=sys.stderr)))
    done, failed = [], 0
    try:
        for cell in cells(options, model):
            figures = one(cell, options)
            if figures is None:
                failed += 1
            else:
                done.append((cell, figures))
    except StopRequested as stop:
        return stop.exit_code
    rows = summarise(done)
    print(render(rows))
    print(json.dumps({"rows": rows, "failed": failed}))
    return 1 if failed else 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=DATA_SETS, help="data sets, folders with a pairs.jsonl")
    parser.add_argument("--folder", type=Path, default=Path("../shared/data"), help="where they are")
    parser.add_argument("--sizes", nargs="+", type=int, default=[500, 1000, 1800], help="pairs to learn from")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-eval", type=int, default=400, help="pairs that measure, at most")
    parser.add_argument("--peers", nargs="*", choices=[TRL], default=[TRL], help="who else is trained")
    parser.add_argument("--trl-epochs", type=int, default=1)
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-reward-accuracy"), help="folder of the results")
    parser.add_argument("--install-peers", action="store_true", help="make TRL's environment, and end")
    return parser


def cells(options: argparse.Namespace, model: str) -> list[Cell]:
    """All that is asked for, the smallest sizes first, so that a run that is cut short has something of all."""
    return [
        Cell(data, size, seed, options.max_eval, who, model, options.trl_epochs if who == TRL else 0)
        for size in sorted(options.sizes)
        for data in options.data
        for seed in options.seeds
        for who in (OURS, *options.peers)
    ]


def one(cell: Cell, options: argparse.Namespace) -> Figures | None:
    """The figures of a cell, known or made now; None when it could not be made."""
    known = read_result(options.out, cell)
    if known is not None:
        return known
    if cell.who == TRL and not PEERS.installed:
        print(f"{cell.name}: not installed: run {INSTALL}", file=sys.stderr)
        return None
    print(cell.name, file=sys.stderr)
    try:
        figures = train(options.folder, cell)
    except TrainerFailed as error:
        print(f"{cell.name} failed:\n{error}", file=sys.stderr)
        return None
    write_result(options.out, cell, figures)
    return figures


if __name__ == "__main__":
    sys.exit(main())
