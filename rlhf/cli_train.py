"""`rlhf train`: a reward-model job from preference data as it lies in a file or on the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rlhf.cli_requests import RequestFailed, asked, checked, read_json, trainer
from rlhf.local.console import Console
from rlhf.local.signals import StopSignals


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """Args: commands, of the command line; where, the options that name a service."""
    train = commands.add_parser("train", parents=[where], help="train a reward model on preference data")
    train.add_argument("source", help=".jsonl, .jsonl.gz, .json, .parquet, or owner/name on the Hub")
    train.add_argument("--format", help="of its rows (default: the only one that fits them)")
    train.add_argument("--split", default="train", help="of a data set on the Hub (default: train)")
    train.add_argument("--pairs", type=int, help="use so many, whole prompts balanced over their types (default: all)")
    train.add_argument("--seed", type=int, default=0, help="of that choice and of the training (default: 0)")
    train.add_argument("--settings", type=Path, help="JSON with settings of the job: members, epochs, ...")
    train.add_argument("--out", type=Path, help="write the job for `rlhf jobs submit` in place of submitting it")
    train.set_defaults(command=run_train)


def run_train(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf train SOURCE`."""
    from rlhf.contracts.jobs import RewardModelJobConfig

    pairs = _read(options, console)
    settings = {} if options.settings is None else _settings(options.settings)
    body = {"seed": options.seed, **settings, "kind": "reward_model", "pairs": pairs}
    config = checked(RewardModelJobConfig, body)
    if options.out is not None:
        options.out.write_text(config.model_dump_json(exclude_defaults=True) + "\n", "utf-8")
        console.say(str(options.out))
        return
    with trainer(options) as client:
        console.say(asked(client.submit, config).id)


def _read(options: argparse.Namespace, console: Console) -> list[Any]:
    from rlhf.data.choose import choose_balanced
    from rlhf.data.formats import read_preferences
    from rlhf.data.sources import DataError, read_rows

    try:
        found = read_preferences(read_rows(options.source, split=options.split), name=options.format)
    except (DataError, OSError) as error:
        raise RequestFailed(f"{options.source}: {error}") from error
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in found.left_out.most_common())
    console.complain(f"{options.source}: {found.rows} rows of the format {found.format}{left_out}")
    if options.pairs is None or options.pairs >= len(found.pairs):
        return [each.pair for each in found.pairs]
    chosen = choose_balanced(found.pairs, options.pairs, seed=options.seed)
    console.complain(f"{len(chosen)} of {len(found.pairs)} pairs chosen")
    return chosen


def _settings(path: Path) -> dict[str, Any]:
    settings = read_json("the settings", path)
    if not isinstance(settings, dict):
        raise RequestFailed(f'{path} holds {type(settings).__name__}; send an object, such as {{"members": 3}}')
    return settings
