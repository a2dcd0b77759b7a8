"""The demo's shipped data: prompts and preference pairs as plain dictionaries. No torch, nothing is downloaded."""

from __future__ import annotations

import json
from importlib import resources
from typing import Literal, TypedDict

from rlhf.demo.prompts import Split

SYSTEM_PROMPT = "Answer in one or two short sentences."
"""The task's system prompt: every pair carries it, and PPO's policy is asked with it."""


class PromptRow(TypedDict):
    """One line of `data/prompts.jsonl`."""

    id: str
    type: str
    prompt: str
    split: Split


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class PairRow(TypedDict):
    """One line of `data/pairs.jsonl`: two responses to one prompt; scores are the rubric's, in [0, 1]."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    prompt_id: str
    type: str
    split: Split
    margin: float
    score_chosen: float
    score_rejected: float


def load_prompts(split: Split | None = None) -> list[PromptRow]:
    """Read the shipped prompts.

    Args:
        split: `train`, `heldout`, or None for both.

    Returns:
        The rows in the order of the file.
    """
    rows: list[PromptRow] = [json.loads(line) for line in _lines("prompts.jsonl")]
    return [row for row in rows if split is None or row["split"] == split]


def load_pairs(split: Split | None = None) -> list[PairRow]:
    """Read the shipped preference pairs; a pair has the split of its prompt.

    Args:
        split: `train`, `heldout`, or None for both.

    Returns:
        The rows in the order of the file.
    """
    rows: list[PairRow] = [json.loads(line) for line in _lines("pairs.jsonl")]
    return [row for row in rows if split is None or row["split"] == split]


def _lines(name: str) -> list[str]:
    return resources.files("rlhf.demo").joinpath("data").joinpath(name).read_text("utf-8").splitlines()
