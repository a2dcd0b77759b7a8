"""`rlhf train` and `rlhf reward-bench`: preference data, of a file or the Hub, trains a reward model or tries one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.cli_estimate import describe_estimate
from rlhf.cli_requests import RequestFailed, add_priority, asked, checked, find_service, read_json, trainer
from rlhf.contracts.errors import ServiceError
from rlhf.local.console import Console
from rlhf.local.signals import StopSignals

if TYPE_CHECKING:
    from rlhf.contracts.jobs import AnyJobConfig, PreferencePair
    from rlhf.data.formats import TypedPair

PRESETS = ("500", "2000", "5000")
"""Pairs that `configs/reward-*.json` have settings for."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """Args: commands, of the command line; where, the options that name a service."""
    data = data_options()
    data.add_argument("--format", help="of its rows (default: the only one that fits them)")
    train = commands.add_parser("train", parents=[where, data], help="train a reward model on preference data")
    train.add_argument("--pairs", type=int, help="use so many, whole prompts balanced over their types (default: all)")
    train.add_argument("--seed", type=int, default=0, help="of that choice and of the training (default: 0)")
    train.add_argument("--preset", choices=PRESETS, help="settings for so many pairs, and so many pairs")
    train.add_argument("--settings", type=Path, help="JSON with settings of the job: members, epochs, ...")
    delivery_options(train)
    add_priority(train)
    train.set_defaults(command=run_train)

    bench = commands.add_parser(
        "reward-bench", parents=[where, data], help="how often a served reward model prefers the better response"
    )
    bench.add_argument("--model", help="job@version (default: the server's default model)")
    bench.add_argument("--json", action="store_true", help="print JSON in place of a table")
    bench.set_defaults(command=run_reward_bench)


def data_options() -> argparse.ArgumentParser:
    """The options that say where data is."""
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("source", help=".jsonl, .jsonl.gz, .json, .parquet, or owner/name on the Hub")
    data.add_argument("--split", default="train", help="of a data set on the Hub (default: train)")
    data.add_argument("--limit", type=int, help="read the first so many rows (default: all)")
    return data


def delivery_options(command: argparse.ArgumentParser) -> None:
    """What becomes of the job, if it is not submitted. Args: command, that makes one."""
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--out", type=Path, help="write the job for `rlhf jobs submit` in place of submitting it")
    instead.add_argument("--dry-run", action="store_true", help="say what the job would take; nothing is queued")


def run_train(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf train SOURCE`."""
    from rlhf.contracts.jobs import RewardModelJobConfig

    preset = {} if options.preset is None else read_settings(preset_file(options.preset))
    settings = {} if options.settings is None else read_settings(options.settings)
    wanted = int(options.preset) if options.pairs is None and options.preset is not None else options.pairs
    pairs = _choose(_read(options, console), wanted, options.seed, console)
    body = {"seed": options.seed, **preset, **settings, "kind": "reward_model", "pairs": pairs}
    config = checked(RewardModelJobConfig, body)
    deliver(config, options, console)


def deliver(config: AnyJobConfig, options: argparse.Namespace, console: Console) -> str | None:
    """Writes a job to `--out`, asks what it would take (`--dry-run`), or submits it; says the outcome.

    Returns:
        The job's id, if it was submitted.
    """
    if options.out is not None:
        if options.priority:
            raise RequestFailed(
                f"--priority {options.priority} is no part of the file that --out writes; give it to `rlhf jobs submit`"
            )
        options.out.write_text(config.model_dump_json(exclude_defaults=True, by_alias=True) + "\n", "utf-8")
        console.say(str(options.out))
        return None
    with trainer(options) as client:
        if options.dry_run:
            console.say(describe_estimate(asked(client.estimate, config)))
            return None
        job: str = asked(client.submit, config, priority=options.priority).id
    console.say(job)
    return job


def run_reward_bench(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf reward-bench SOURCE`."""
    from rlhf.clients.reward import RewardClient
    from rlhf.contracts.reward import RewardRequest
    from rlhf.evaluation.reward_bench import describe, judge_pairs, summarise

    checked(RewardRequest, {"samples": [], "model": options.model})
    pairs = _read(options, console)
    if not pairs:
        raise RequestFailed(f"{options.source} has no pair to score")
    try:
        with RewardClient(*find_service(options, "reward")) as client:
            told = summarise(list(judge_pairs(client.score, pairs, model=options.model)))
    except ServiceError as error:
        raise RequestFailed(f"reward: {error}") from error
    console.say(json.dumps(told) if options.json else describe(told))


def preset_file(pairs: str) -> Path:
    """The settings for so many pairs. Args: pairs, one of PRESETS."""
    return Path(__file__).parents[1] / "configs" / f"reward-{pairs}.json"


def _read(options: argparse.Namespace, console: Console) -> list[TypedPair]:
    from rlhf.data.formats import read_preferences
    from rlhf.data.sources import DataError, read_rows

    try:
        rows = read_rows(options.source, split=options.split, limit=options.limit)
        found = read_preferences(rows, name=options.format)
    except (DataError, OSError) as error:
        raise RequestFailed(f"{options.source}: {error}") from error
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in found.left_out.most_common())
    console.complain(f"{options.source}: {found.rows} rows of the format {found.format}{left_out}")
    return found.pairs


def _choose(pairs: list[TypedPair], wanted: int | None, seed: int, console: Console) -> list[PreferencePair]:
    from rlhf.data.choose import choose_balanced

    if wanted is None or wanted >= len(pairs):
        return [each.pair for each in pairs]
    chosen = choose_balanced(pairs, wanted, seed=seed)
    console.complain(f"{len(chosen)} of {len(pairs)} pairs chosen")
    return chosen


def read_settings(path: Path) -> dict[str, Any]:
    """A file of settings of a job. Raises RequestFailed when it is none."""
    settings = read_json("the settings", path)
    if not isinstance(settings, dict):
        raise RequestFailed(f'{path} holds {type(settings).__name__}; send an object, such as {{"members": 3}}')
    return settings
