"""Our side: a PPO job on the whole stack, as users run it; its steps from the job's own metrics."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import rich.console

from benchmarks.ppo_steps.side import Round, Step
from benchmarks.ppo_steps.work import Work, write_panel
from rlhf.clients.follow import run_job
from rlhf.clients.trainer import TrainerClient
from rlhf.local.jobview import JobView
from rlhf.local.memory import MemorySampler
from rlhf.local.signals import StopSignals
from rlhf.local.stack import Stack, StackOptions

Row = Mapping[str, Any]


class OtherWork(RuntimeError):
    """A response ended before its full length: the sides would not have done the same."""


def measure_ours(work: Work, signals: StopSignals) -> Round:
    """Starts everything, runs one job, stops everything.

    Raises:
        JobFailed, ServiceError, ServiceFailed: it could not.
        OtherWork: a response ended early.
    """
    with tempfile.TemporaryDirectory(prefix="rlhf-bench-") as name:
        folder = Path(name)
        with _panel(write_panel(work, folder / "panel.json")):
            stack = Stack(StackOptions(folder=folder / "run", model=str(work.model)), signals, _say)
            with stack, MemorySampler(lambda: stack.supervisor.pids) as memory:
                trainer = TrainerClient(stack.endpoints.trainer, stack.endpoints.api_key)
                with JobView(rich.console.Console(stderr=True, width=160), "our job") as view:
                    status, _ = run_job(trainer, work.job(), view, stack.supervisor.check)
                rows = trainer.metrics(status.id).rows
    return Round(read_steps(rows, work), memory.peaks_mib["total"])


def read_steps(rows: Sequence[Row], work: Work) -> list[Step]:
    """Steps but the first. Args: rows, of the job's metrics, at least two; work, that was asked for."""
    for row in rows:
        if row["tokens"] != work.prompts * work.new_tokens:
            raise OtherWork(
                f"step {row['step']} has {row['tokens']:.0f} response tokens, not {work.prompts} × {work.new_tokens}"
            )
    return [
        # A row is written when its step is over, checkpoint and adapter included.
        Step(row["time"] - before["time"], row["generate_s"], row["score_s"], row["learn_s"])
        for before, row in pairwise(rows)
    ]


@contextmanager
def _panel(path: Path) -> Iterator[None]:
    """Names the panel in the environment, from which the stack's services take it."""
    before = os.environ.get("RLHF_REWARD_PANELS")
    os.environ["RLHF_REWARD_PANELS"] = str(path)
    try:
        yield
    finally:
        del os.environ["RLHF_REWARD_PANELS"]
        if before is not None:
            os.environ["RLHF_REWARD_PANELS"] = before


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
