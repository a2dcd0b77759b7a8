"""The command `rlhf`: the demo, the services on this machine, and requests to running services."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rlhf import cli_evaluate, cli_jobs, cli_ppo, cli_report, cli_requests, cli_train
from rlhf.local.console import Console, OutputLost
from rlhf.local.machine import PortTaken
from rlhf.local.processes import ServiceFailed
from rlhf.local.runfolder import FolderBusy
from rlhf.local.signals import StopRequested, StopSignals
from rlhf.local.weights import WeightsUnavailable

Command = Callable[[argparse.Namespace, StopSignals, Console], None]
EXPECTED = (ServiceFailed, FolderBusy, PortTaken, WeightsUnavailable, cli_requests.RequestFailed)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 only when everything worked, 2 for a wrong command line."""
    options = build_parser().parse_args(arguments)
    command: Command = options.command
    with StopSignals() as signals:
        console = Console(signals)
        try:
            command(options, signals, console)
        except EXPECTED as failure:
            console.complain(f"rlhf: {failure}")
            return 1
        except StopRequested as stop:
            console.complain(f"rlhf: stopped by {stop.signal.name}; every process it started is gone")
            return stop.exit_code
        except OutputLost:
            # Such as after `| head`. Python must not try to write the rest at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="rlhf", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_local_commands(commands)
    where = cli_requests.service_options()
    cli_requests.add_commands(commands, where)
    cli_jobs.add_commands(commands, where)
    cli_train.add_commands(commands, where)
    cli_ppo.add_commands(commands, where)
    cli_evaluate.add_commands(commands, where)
    cli_report.add_commands(commands, where)
    return parser


SERVED = ("policy", "reward", "trainer", "console", "redis")
"""What `rlhf serve` starts that has a port to choose."""


def add_local_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`demo`, `serve` and `weights`."""
    model = "base model: a folder or a Hub id (default: SmolLM2-135M-Instruct, downloaded once)"
    demo = commands.add_parser("demo", help="train a policy by PPO against a reward ensemble, and report")
    demo.add_argument("--steps", type=int, help="PPO steps (default: the preset's)")
    demo.add_argument("--seed", type=int, default=0, help="decides everything that is random (default: 0)")
    demo.add_argument("--model", help=model)
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: runs/demo)")
    demo.add_argument("--config", type=Path, help="preset with the settings of both jobs (default: configs/demo.json)")
    demo.add_argument(
        "--running",
        action="store_true",
        help="use services that run already: RLHF_POLICY_URL, RLHF_REWARD_URL, RLHF_TRAINER_URL, or --endpoints",
    )
    demo.add_argument("--api-key-file", type=Path, help="with --running: file with their key (default: RLHF_API_KEY)")
    demo.add_argument(
        "--endpoints", type=Path, default=cli_requests.ENDPOINTS, help="with --running: what `rlhf serve` wrote"
    )
    demo.set_defaults(command=run_demo, url=None)

    serve = commands.add_parser("serve", help="start all services on this machine, until Ctrl-C")
    serve.add_argument("--model", help=model)
    serve.add_argument("--out", type=Path, default=Path("runs/serve"), help="folder of the run (default: runs/serve)")
    for name in SERVED:
        serve.add_argument(f"--port-{name}", type=int, default=0, metavar="PORT", help="default: a free one")
    serve.add_argument("--fresh", action="store_true", help="forget jobs, adapters and reward models of earlier runs")
    serve.set_defaults(command=run_serve)

    weights = commands.add_parser("weights", help="get SmolLM2-135M-Instruct and print its folder")
    weights.add_argument("--cache", type=Path, help="default: RLHF_CACHE, or the user's cache folder")
    weights.set_defaults(command=run_weights)


def run_demo(options: argparse.Namespace, signals: StopSignals, console: Console) -> None:
    """`rlhf demo`."""
    from rlhf.demo import run
    from rlhf.demo.heldout import NotScored
    from rlhf.demo.outcome import ResultIncomplete
    from rlhf.demo.preset import PRESET, PresetInvalid

    preset = options.config or PRESET
    running = None
    if options.running:
        if options.model is not None:
            raise cli_requests.RequestFailed("running services have their model already; leave --model out")
        running = {name: cli_requests.find_service(options, name) for name in ("policy", "reward", "trainer")}
    choice = run.DemoOptions(options.out, options.seed, preset, options.steps, options.model, running)
    try:
        report = run.run_demo(choice, signals, console)
    except (NotScored, ResultIncomplete, PresetInvalid) as failure:
        raise cli_requests.RequestFailed(str(failure)) from failure
    console.say(run.summarise(report, options.out))


def run_serve(options: argparse.Namespace, signals: StopSignals, console: Console) -> None:
    """`rlhf serve`."""
    from rlhf.local.serve import serve
    from rlhf.local.stack import StackOptions
    from rlhf.local.weights import ensure_smollm2

    ports = {name: getattr(options, f"port_{name}") for name in SERVED}
    model = options.model or str(ensure_smollm2(say=console.say, signals=signals))
    key = os.environ.get("RLHF_API_KEY")
    choice = StackOptions(options.out, model, ports, api_key=key, evaluations=True, console=True)
    serve(choice, signals, console.say, fresh=options.fresh)


def run_weights(options: argparse.Namespace, signals: StopSignals, console: Console) -> None:
    """`rlhf weights`."""
    from rlhf.local.weights import ensure_smollm2

    console.say(str(ensure_smollm2(options.cache, say=console.complain, signals=signals)))


if __name__ == "__main__":
    sys.exit(main())
