"""`make bench-ppo`: a PPO step of ours beside one of TRL's PPOTrainer, and the same first step's losses on both.

Both train SmolLM2-135M with LoRA in float32 on the demo's prompts: the same number of samples, one a prompt, each of
exactly the same number of tokens (the model's EOS is replaced by a token that it never samples), the same epochs,
minibatches and samples a pass, rank and adapted layers, scored by the same sequence classifier of the same size. One
side at a time has all cores; rounds alternate their order. Ours runs through the real services, checkpoint and
published adapter included; TRL runs in one process and writes nothing.

    step      seconds of a step: the median (and the least) over all rounds, without each round's first
    rollout   sampling; score: the reward model; learn: log-probabilities, reference, values, update; other: the rest
    memory    the highest sum over all processes; shared pages count once

Not measured: what is learned (make bench-learning), and several samples a prompt, whose prompt ours computes once.

make bench-ppo ARGS="--install-peers"     once: TRL's environment
make bench-ppo ARGS="--rounds 2 --steps 3"
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ppo_steps.check import check_first_step
from benchmarks.ppo_steps.ours import OtherWork, measure_ours
from benchmarks.ppo_steps.peer import INSTALL, PEERS, TRL, PeerFailed, install_peers, measure_trl
from benchmarks.ppo_steps.side import Round, summarise
from benchmarks.ppo_steps.table import render
from benchmarks.ppo_steps.work import Work, make_endless
from benchmarks.servers import environment
from rlhf.clients.follow import JobFailed
from rlhf.contracts.errors import ServiceError
from rlhf.local.machine import physical_cores
from rlhf.local.processes import ServiceFailed, run_tool
from rlhf.local.signals import StopRequested, StopSignals
from rlhf.local.weights import ensure_smollm2


def main() -> int:
    """Measures and prints; returns 1 when a side that is installed could not do the work, or the losses differ."""
    parser = make_parser()
    options = parser.parse_args()
    if options.prompts % (options.minibatches * options.samples_per_pass):
        parser.error(
            f"--prompts {options.prompts} are no whole number of passes of "
            f"--samples-per-pass {options.samples_per_pass} in each of --minibatches {options.minibatches}"
        )
    if options.install_peers:
        install_peers()
        return 0
    with StopSignals() as signals, tempfile.TemporaryDirectory(prefix="rlhf-bench-") as folder:
        try:
            work = make_work(options, Path(folder), signals)
            rounds, checked = measure(work, options.rounds, signals, check=not options.no_check)
        except (ServiceFailed, ServiceError, JobFailed, OtherWork, PeerFailed) as error:
            say(str(error))
            return 1
        except StopRequested as stop:
            return stop.exit_code
    figures = compare({side: summarise(done, work.prompts) for side, done in rounds.items() if done}, checked)
    print(render(figures))
    print(json.dumps(figures))
    return 0 if checked is None or checked["agree"] else 1


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="times that each side is run")
    parser.add_argument("--steps", type=int, default=3, help="of each round, at least 2; the first warms up")
    parser.add_argument("--prompts", type=int, default=16, help="of a step, one sample each")
    parser.add_argument("--new-tokens", type=int, default=32, help="of every response")
    parser.add_argument("--epochs", type=int, default=4, help="over a step's samples")
    parser.add_argument("--minibatches", type=int, default=1, help="optimiser steps an epoch")
    parser.add_argument(
        "--samples-per-pass", type=int, default=4, help="of a forward and backward pass; divides a minibatch"
    )
    parser.add_argument("--lora-r", type=int, default=16, help="rank")
    parser.add_argument("--top-layers", type=int, help="layers with an adapter (default: all)")
    parser.add_argument("--no-check", action="store_true", help="leave out the comparison of losses")
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--install-peers", action="store_true", help="make TRL's environment, and end")
    return parser


def make_work(options: argparse.Namespace, folder: Path, signals: StopSignals) -> Work:
    """The work, with its two models in a folder."""
    model = make_endless(Path(options.model or ensure_smollm2(say=say, signals=signals)), folder / "model")
    command = [sys.executable, "-m", "benchmarks.ppo_steps.classifier", str(model), str(folder / "classifier")]
    try:
        run_tool(command, environment(physical_cores()), signals)
    except subprocess.CalledProcessError as error:
        raise PeerFailed(f"the reward model could not be made:\n{error.output}") from error
    return Work(
        model=model,
        classifier=folder / "classifier",
        steps=options.steps,
        prompts=options.prompts,
        new_tokens=options.new_tokens,
        epochs=options.epochs,
        minibatches=options.minibatches,
        samples_per_pass=options.samples_per_pass,
        lora_r=options.lora_r,
        top_layers=options.top_layers,
    )


def measure(
    work: Work, rounds: int, signals: StopSignals, *, check: bool
) -> tuple[dict[str, list[Round]], dict[str, Any] | None]:
    """Runs the sides in turn, in this order and then in the opposite one, and then the check."""
    sides = {"ours": measure_ours, "trl": measure_trl}
    done: dict[str, list[Round]] = {side: [] for side in sides}
    if not PEERS.installed:
        say(f"{TRL} is not installed: run {INSTALL}; measuring ours alone")
        del sides["trl"]
    for turn in range(rounds):
        for side in list(sides) if turn % 2 == 0 else reversed(sides):
            say(f"round {turn + 1}: {side}")
            done[side].append(sides[side](work, signals))
    if not check or "trl" not in sides:
        return done, None
    say("the first step's losses")
    return done, check_first_step(work, signals)


def compare(sides: dict[str, dict[str, Any]], checked: dict[str, Any] | None) -> dict[str, Any]:
    """The line of JSON. Without TRL its figures are null."""
    ours, trl = sides["ours"], sides.get("trl")
    return {
        "ours_samples_per_s": ours["samples_per_s"],
        "trl_samples_per_s": trl and trl["samples_per_s"],
        "speedup_vs_trl": trl and ours["samples_per_s"] / trl["samples_per_s"],
        "peak_memory_ratio": trl and ours["peak_mib"] / trl["peak_mib"],
        "split_s": {side: figures["split_s"] for side, figures in sides.items()},
        "first_step": checked,
        "sides": sides,
    }


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
