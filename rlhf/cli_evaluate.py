"""`rlhf evaluate`: an evaluation job from data as it lies in files or on the Hub."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rlhf.cli_gates import gate_options, gates_of, wait_for_gates
from rlhf.cli_requests import RequestFailed, add_priority, checked
from rlhf.cli_train import deliver, delivery_options, read_settings
from rlhf.local.console import Console
from rlhf.local.signals import StopSignals
from rlhf.presets import overridden

Found = TypeVar("Found")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """Args: commands, of the command line; where, the options that name a service."""
    evaluate = commands.add_parser(
        "evaluate", parents=[where], help="measure an adapter beside a baseline: win rate, KL, safety, bias"
    )
    evaluate.add_argument("adapter", help="job@version, or job@latest for the newest accepted one at submission")
    evaluate.add_argument("--baseline", help="as the adapter (default: the base model)")
    evaluate.add_argument("--reward-model", help="job@version, judges responses and counterfactuals")
    evaluate.add_argument("--prompts", help="rows with a prompt, and `references` where metrics need them")
    evaluate.add_argument("--xstest", help="xstest_prompts.csv, another file of its columns, or owner/name on the Hub")
    evaluate.add_argument("--bbq", nargs="+", help="BBQ's .jsonl files, a folder of them, or owner/name on the Hub")
    evaluate.add_argument("--counterfactual", help="rows with a prompt and a response (or chosen) for swaps on rewards")
    evaluate.add_argument("--red-team", metavar="FILE", help="rows with a prompt, and a category: .csv, .jsonl, ...")
    evaluate.add_argument("--split", help="of data sets on the Hub (default: train, of BBQ test)")
    evaluate.add_argument("--limit", type=int, help="use the first so many rows of each source (default: all)")
    evaluate.add_argument("--seed", type=int, default=0, help="of the samples and intervals (default: 0)")
    evaluate.add_argument(
        "--settings", type=Path, help='JSON with settings of the job, such as {"responses": {"metrics": [...]}}'
    )
    gate_options(evaluate, "the command then waits for the end, and exits with 1 when one fails")
    evaluate.add_argument(
        "--promote", action="store_true", help="accept the adapter as job@latest when all gates hold, else reject it"
    )
    delivery_options(evaluate)
    add_priority(evaluate)
    evaluate.set_defaults(command=run_evaluate)


def run_evaluate(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf evaluate ADAPTER --prompts SOURCE --xstest SOURCE ...`."""
    from rlhf.contracts.evaluation import EvaluationJobConfig
    from rlhf.data.benchmarks import read_bbq, read_evaluation_prompts, read_red_team, read_samples, read_xstest

    split, limit = options.split or "train", options.limit
    body: dict[str, Any] = {"seed": options.seed}
    if options.prompts:
        rows = _read(options.prompts, lambda: read_evaluation_prompts(options.prompts, split=split, limit=limit))
        body["responses"] = {"prompts": rows}
    if options.xstest:
        body["xstest"] = {
            "prompts": _read(options.xstest, lambda: read_xstest(options.xstest, split=split, limit=limit))
        }
    if options.bbq:
        questions = _read("BBQ", lambda: read_bbq(options.bbq, split=options.split or "test", limit=limit))
        body["bbq"] = {"questions": questions}
    if options.counterfactual:
        samples = _read(options.counterfactual, lambda: read_samples(options.counterfactual, split=split, limit=limit))
        body["counterfactual"] = {"samples": samples}
    if options.red_team:
        body["red_team"] = {
            "prompts": _read(options.red_team, lambda: read_red_team(options.red_team, split=split, limit=limit))
        }
    settings = {} if options.settings is None else read_settings(options.settings)
    body = overridden(body, settings)
    body |= {"kind": "evaluation", "adapter": options.adapter}
    body |= {"baseline": options.baseline} if options.baseline else {}
    body |= {"reward_model": options.reward_model} if options.reward_model else {}
    gates = {**body.get("gates", {}), **gates_of(options)}
    body |= {"gates": gates} if gates else {}
    body |= {"promote": True} if options.promote else {}
    job = deliver(checked(EvaluationJobConfig, body), options, console)
    if job is not None and options.gate:
        wait_for_gates(options, job, console)


def _read(source: str, read: Callable[[], list[Found]]) -> list[Found]:
    """What a reader gives; its errors become RequestFailed."""
    from rlhf.data.sources import DataError

    try:
        found = read()
    except (DataError, OSError) as error:
        raise RequestFailed(f"{source}: {error}") from error
    if not found:
        raise RequestFailed(f"{source} has no rows")
    return found
