"""A cell: a data set, size, seed and trainer. Which pairs it learns from and is measured on, where its result lies."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf.contracts.base import prompt_key
from rlhf.contracts.jobs import PreferencePair, RewardModelJobConfig
from rlhf.data.formats import read_preferences
from rlhf.data.sources import read_rows
from services.trainer.reward_model.data import filter_pairs, read_pairs, split_by_prompt

MOST_EVALUATED = 0.25
"""Share of a data set that may measure."""


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        data: name of the data set.
        size: pairs to learn from, validation included; less where the data set has no more.
        seed: of the split and the training.
        max_eval: pairs that measure, at most.
        who: ours or trl.
        model: folder of the backbone.
        trl_epochs: passes of TRL over its pairs; 0 in cells of others.
    """

    data: str
    size: int
    seed: int
    max_eval: int
    who: str
    model: str
    trl_epochs: int

    @property
    def name(self) -> str:
        """Of its result."""
        return f"{self.data}-{self.size}-seed{self.seed}-{self.who}.json"

    def config(self, pairs: Sequence[PreferencePair]) -> RewardModelJobConfig:
        """The job that is ours, and the split that is everyone's."""
        return RewardModelJobConfig(kind="reward_model", pairs=list(pairs), seed=self.seed)


def choose_pairs(folder: Path, cell: Cell) -> list[PreferencePair]:
    """Pairs of whole prompts in an order of the seed: those that measure are marked so, the first of the rest train.

    A smaller size is part of a larger one, and is measured on the same pairs.
    """
    by_prompt: dict[str, list[PreferencePair]] = defaultdict(list)
    for each in read_preferences(read_rows(str(folder / cell.data / "pairs.jsonl"))).pairs:
        by_prompt[prompt_key(each.pair.prompt)].append(each.pair)
    prompts = sorted(by_prompt)
    random.Random(cell.seed).shuffle(prompts)
    total = sum(len(pairs) for pairs in by_prompt.values())
    measured = min(cell.max_eval, round(MOST_EVALUATED * total))
    heldout: list[PreferencePair] = []
    train: list[PreferencePair] = []
    for prompt in prompts:
        (heldout if len(heldout) < measured else train).extend(by_prompt[prompt])
    return [
        *(pair.model_copy(update={"split": "heldout"}) for pair in heldout[:measured]),
        *(pair.model_copy(update={"split": None}) for pair in train[: cell.size]),
    ]


def split_rows(config: RewardModelJobConfig) -> dict[str, list[dict[str, Any]]]:
    """The job's own filtered pairs by role, as rows of other trainers."""
    kept, _ = filter_pairs(read_pairs(config.pairs))
    roles = split_by_prompt(kept, fraction=config.validation_fraction, seed=config.seed)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "evaluation": []}
    for pair, role in zip(kept, roles, strict=True):
        row = {"prompt": json.loads(pair.key)}
        for side in ("chosen", "rejected"):
            row[side] = [{"role": "assistant", "content": getattr(pair, side)}]
        rows[role].append(row)
    return rows


def read_result(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The figures of a cell that is done. Args: folder, of results. None: it is not, or was done with other options."""
    path = folder / cell.name
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    return dict(kept["figures"]) if kept["cell"] == asdict(cell) else None


def write_result(folder: Path, cell: Cell, figures: dict[str, Any]) -> None:
    """Keeps the figures of a cell, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{cell.name}.tmp"
    temporary.write_text(json.dumps({"cell": asdict(cell), "figures": figures}) + "\n")
    temporary.replace(folder / cell.name)
