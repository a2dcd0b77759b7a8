"""Prompts for PPO, from the data that people have: lists of prompts, instructions, chats, or preference data.

A row's prompt is, by the first of these columns that it has:

| columns | prompt |
|---|---|
| `prompt` | text or messages, as it is |
| `instruction` | its text, and on the next line that of `input` where there is one (Alpaca, UltraFeedback) |
| `messages` | the turns before the last one of the assistant; all of them where there is none |
| `chosen` | a whole conversation, as messages or as HH-RLHF text: the turns before its last one |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlhf.contracts.base import Message, Prompt, prompt_key, prompt_messages
from rlhf.data.formats import describe_row, is_dialogue, is_marked, plain_turn, split_turns
from rlhf.data.sources import DataError, Row

COLUMNS = "prompt, instruction, messages or chosen"
_PROMPT: TypeAdapter[Prompt] = TypeAdapter(Prompt)


@dataclass(frozen=True)
class PromptSet:
    """A data set as prompts.

    Attributes:
        rows: how many it has.
        prompts: distinct ones, in their order.
        left_out: how many rows gave none, by reason.
    """

    rows: int
    prompts: list[Prompt]
    left_out: Counter[str]


def read_prompts(rows: Iterable[Row]) -> PromptSet:
    """The distinct prompts of a data set.

    Args:
        rows: of one data set.

    Raises:
        DataError: a row has none of the columns, or something else in one. Says which row and what it has.
    """
    prompts: dict[str, Prompt] = {}
    left_out: Counter[str] = Counter()
    number = 0
    for number, row in enumerate(rows, 1):
        try:
            prompt = _PROMPT.validate_python(_prompt_of(row))
        except (ValidationError, DataError) as error:
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise DataError(f"row {number}: {told}; it has {describe_row(row)}") from error
        if reason := _unusable(prompt):
            left_out[reason] += 1
        elif prompts.setdefault(prompt_key(prompt), prompt) is not prompt:
            left_out["the same prompt came before"] += 1
    if not number:
        raise DataError("the data set has no rows")
    return PromptSet(number, list(prompts.values()), left_out)


def _prompt_of(row: Row) -> Any:
    if row.get("prompt") is not None:
        return [plain_turn(turn) for turn in row["prompt"]] if is_dialogue(row["prompt"]) else row["prompt"]
    if isinstance(row.get("instruction"), str):
        return "\n".join(text for text in (row["instruction"], row.get("input")) if text)
    if is_dialogue(row.get("messages")):
        turns = [plain_turn(turn) for turn in row["messages"]]
        answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        return turns[: answers[-1]] if answers else turns
    if is_dialogue(row.get("chosen"), turns=2):
        return [plain_turn(turn) for turn in row["chosen"]][:-1]
    if is_marked(row.get("chosen")):
        return split_turns(row["chosen"])[:-1]
    raise DataError(f"it has none of the columns {COLUMNS} with a prompt in it")


def _unusable(prompt: Prompt) -> str | None:
    turns: list[Message] = prompt_messages(prompt)
    if turns[-1].role == "assistant":
        return "the prompt ends with the assistant's turn"
    return None if turns[-1].content.strip() else "the prompt is empty"
