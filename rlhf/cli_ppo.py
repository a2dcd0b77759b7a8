"""`rlhf ppo`: a PPO job from prompts as they lie in a file or on the Hub."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from rlhf.cli_gates import gate_options, gates_of
from rlhf.cli_requests import RequestFailed, add_priority, checked
from rlhf.cli_train import data_options, deliver, delivery_options, read_settings
from rlhf.contracts.base import Prompt
from rlhf.local.console import Console
from rlhf.local.signals import StopSignals
from rlhf.presets import PRESETS, overridden, preset_file


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """Args: commands, of the command line; where, the options that name a service."""
    ppo = commands.add_parser("ppo", parents=[where, data_options()], help="train the policy by PPO on prompts")
    ppo.add_argument("--reward-model", required=True, help="job@version")
    ppo.add_argument("--prompts", type=int, help="use so many, drawn at random (default: all)")
    ppo.add_argument("--seed", type=int, default=0, help="of that draw and of the training (default: 0)")
    ppo.add_argument("--steps", type=int, help="PPO steps (default: the preset's, or 100)")
    ppo.add_argument("--preset", choices=PRESETS, help="settings for a model; the services serve the model itself")
    ppo.add_argument("--settings", type=Path, help="JSON with settings of the job, over the preset's")
    ppo.add_argument(
        "--evaluation",
        type=Path,
        help="what `rlhf evaluate --out` wrote: measured of the final version, with its gates",
    )
    gate_options(ppo, "all must hold for the final version to become job@latest")
    ppo.add_argument("--promote", choices=("last", "best"), help="which version is final (default: last)")
    delivery_options(ppo)
    add_priority(ppo)
    ppo.set_defaults(command=run_ppo)


def run_ppo(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf ppo SOURCE --reward-model REF`."""
    from rlhf.contracts.jobs import PpoJobConfig

    preset = {} if options.preset is None else read_settings(preset_file(options.preset))
    settings = {} if options.settings is None else read_settings(options.settings)
    steps = {} if options.steps is None else {"steps": options.steps}
    prompts = _read(options, console)
    body = {"seed": options.seed, **overridden(preset, settings), **steps}
    body |= _evaluation(options, body.get("gates", {}))
    body |= {"promote": options.promote} if options.promote else {}
    body |= {"kind": "ppo", "prompts": prompts, "reward_model": options.reward_model}
    config = checked(PpoJobConfig, body)
    deliver(config, options, console)


def _evaluation(options: argparse.Namespace, given: dict[str, str]) -> dict[str, Any]:
    """`evaluation` and `gates` of the job, where the options have them. Args: given, gates of the settings."""
    measured = {} if options.evaluation is None else read_settings(options.evaluation)
    gates = {**given, **measured.pop("gates", {}), **gates_of(options)}
    # The adapter is the job's own, whatever the file names.
    measured = {name: value for name, value in measured.items() if name not in ("kind", "adapter", "promote")}
    return ({"evaluation": measured} if measured else {}) | ({"gates": gates} if gates else {})


def _read(options: argparse.Namespace, console: Console) -> list[Prompt]:
    from rlhf.data.prompts import read_prompts
    from rlhf.data.sources import DataError, read_rows

    try:
        found = read_prompts(read_rows(options.source, split=options.split, limit=options.limit))
    except (DataError, OSError) as error:
        raise RequestFailed(f"{options.source}: {error}") from error
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in found.left_out.most_common())
    console.complain(f"{options.source}: {len(found.prompts)} prompts in {found.rows} rows{left_out}")
    if options.prompts is None or options.prompts >= len(found.prompts):
        return found.prompts
    return random.Random(options.seed).sample(found.prompts, options.prompts)
