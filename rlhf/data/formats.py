"""The formats that preference data comes in, how each is recognised, and its rows as pairs.

| format | columns |
|---|---|
| `conversational` | `prompt`: messages; `chosen`, `rejected`: messages of one assistant turn, or text (TRL) |
| `plain` | `prompt`, `chosen`, `rejected`: text (TRL, RewardBench) |
| `dialogue` | `chosen`, `rejected`: whole conversations, equal but for the last turn (TRL, UltraFeedback binarized) |
| `hh` | `chosen`, `rejected`: text with the marks `Human:` and `Assistant:`, differing after the last one (HH-RLHF) |
| `ultrafeedback` | `instruction`: text; `completions`: each with `response` and a score; best against worst |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from pydantic import ValidationError

from rlhf.contracts.jobs import PreferencePair
from rlhf.data.sources import DataError, Row

LOOKED_AT = 200
"""Rows that decide the format."""
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_SCORES = ("overall_score", "fine-grained_score", "score")
_TYPES = ("type", "subset", "category", "source")


@dataclass(frozen=True)
class TypedPair:
    """A pair, and what kind of prompt it is of where the source says so."""

    pair: PreferencePair
    kind: str | None


@dataclass(frozen=True)
class Preferences:
    """A data set as pairs.

    Attributes:
        format: the name of its format.
        rows: how many it has.
        pairs: one a row that holds a preference.
        left_out: how many rows hold none, by reason.
    """

    format: str
    rows: int
    pairs: list[TypedPair]
    left_out: Counter[str]


class NoPreferenceError(ValueError):
    """A row that is of its format and prefers nothing; the message is the reason."""


@dataclass(frozen=True)
class Format:
    """Attributes: fits, whether a row is of this format; convert, its pair, or raises NoPreferenceError."""

    name: str
    needs: str
    fits: Callable[[Row], bool]
    convert: Callable[[Row], dict[str, Any]]


def read_preferences(rows: Iterable[Row], *, name: str | None = None) -> Preferences:
    """Rows as pairs.

    Args:
        rows: of one data set.
        name: of their format; None: the only one that fits the first rows.

    Raises:
        DataError: no format fits, or several do; or a row is not of the format. Says which row and what it has.
    """
    iterator = iter(rows)
    first = list(islice(iterator, LOOKED_AT))
    chosen = detect(first) if name is None else _by_name(name)
    pairs: list[TypedPair] = []
    left_out: Counter[str] = Counter()
    number = 0
    for number, row in enumerate(chain(first, iterator), 1):
        if not chosen.fits(row):
            raise DataError(f"row {number} is not {chosen.name} ({chosen.needs}); it has {describe_row(row)}")
        try:
            pairs.append(TypedPair(PreferencePair.model_validate(chosen.convert(row)), _kind(row)))
        except NoPreferenceError as reason:
            left_out[str(reason)] += 1
        except ValidationError as error:
            told = error.errors()[0]
            where = ".".join(str(part) for part in told["loc"])
            raise DataError(f"row {number}, {where}: {told['msg']} (got {str(told['input'])[:80]!r})") from error
    return Preferences(chosen.name, number, pairs, left_out)


def detect(rows: Sequence[Row]) -> Format:
    """The format of all these rows. Raises DataError when none is, or when it cannot be told."""
    if not rows:
        raise DataError("the data set has no rows")
    fitting = [each for each in FORMATS if all(each.fits(row) for row in rows)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(each.name for each in fitting)
        raise DataError(f"the rows may be {names}; say which with --format")
    known = "; ".join(f"{each.name}: {each.needs}" for each in FORMATS)
    most = max(FORMATS, key=lambda each: sum(each.fits(row) for row in rows))
    number, row = next((i, row) for i, row in enumerate(rows, 1) if not most.fits(row))
    raise DataError(f"no known format fits all rows: row {number} has {describe_row(row)}. Known are {known}")


def _by_name(name: str) -> Format:
    for each in FORMATS:
        if each.name == name:
            return each
    raise DataError(f"format {name!r} is unknown; known are {', '.join(each.name for each in FORMATS)}")


def _is_text(row: Row, *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def is_dialogue(value: object, *, turns: int = 1) -> bool:
    """Whether a value is messages. Args: turns, at least so many."""
    return (
        isinstance(value, list)
        and len(value) >= turns
        and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value)
    )


def is_marked(text: object) -> bool:
    """Whether a value is a dialogue as HH-RLHF writes them."""
    return isinstance(text, str) and [turn[1] for turn in _TURN.finditer(text)][:2] == ["Human", "Assistant"]


def _fits_conversational(row: Row) -> bool:
    return is_dialogue(row.get("prompt")) and all(
        isinstance(row.get(name), str) or is_dialogue(row.get(name)) for name in ("chosen", "rejected")
    )


def _fits_plain(row: Row) -> bool:
    return _is_text(row, "prompt", "chosen", "rejected") and not (
        is_marked(row["chosen"]) and is_marked(row["rejected"])
    )


def _fits_dialogue(row: Row) -> bool:
    whole = all(is_dialogue(row.get(name), turns=2) for name in ("chosen", "rejected"))
    return whole and (row.get("prompt") is None or isinstance(row["prompt"], str))


def _fits_hh(row: Row) -> bool:
    return is_marked(row.get("chosen")) and is_marked(row.get("rejected")) and row.get("prompt") is None


def _fits_ultrafeedback(row: Row) -> bool:
    told = row.get("completions")
    return _is_text(row, "instruction") and isinstance(told, list) and all(_fits_completion(each) for each in told)


def _fits_completion(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("response"), str) and _score_of(value) is not None


def _score_of(completion: Row) -> float | None:
    found = next((completion[name] for name in _SCORES if completion.get(name) is not None), None)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _with_margin(row: Row, body: dict[str, Any]) -> dict[str, Any]:
    """Adds how much better chosen is, where the source has it as `margin` or as a score of each."""
    margin, scores = row.get("margin"), (row.get("score_chosen"), row.get("score_rejected"))
    if isinstance(margin, int | float):
        body["margin"] = margin
    elif all(isinstance(score, int | float) for score in scores):
        body["margin"] = max(0.0, float(scores[0]) - float(scores[1]))  # type: ignore[arg-type]
    if row.get("split") in ("train", "heldout"):
        body["split"] = row["split"]
    return body


def _as_it_is(row: Row) -> dict[str, Any]:
    return _with_margin(row, {name: row[name] for name in ("prompt", "chosen", "rejected")})


def _split_dialogue(row: Row) -> dict[str, Any]:
    chosen, rejected = ([plain_turn(turn) for turn in row[name]] for name in ("chosen", "rejected"))
    return _with_margin(row, _split_last(chosen, rejected))


def _split_hh(row: Row) -> dict[str, Any]:
    return _with_margin(row, _split_last(split_turns(row["chosen"]), split_turns(row["rejected"])))


def _split_last(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> dict[str, Any]:
    if chosen[:-1] != rejected[:-1]:
        # Some rows of HH-RLHF do: what is preferred then is a conversation and not a response.
        raise NoPreferenceError("the conversations differ before their last turn")
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def plain_turn(turn: Row) -> dict[str, str]:
    """Without what else a source stores with a turn."""
    return {"role": turn["role"], "content": turn["content"]}


def split_turns(text: str) -> list[dict[str, str]]:
    """HH-RLHF's text as messages."""
    marks = list(_TURN.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[mark[1]], "content": text[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _best_and_worst(row: Row) -> dict[str, Any]:
    ranked = sorted((_score_of(each) or 0.0, index) for index, each in enumerate(row["completions"]))
    if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:
        raise NoPreferenceError("fewer than two completions with different scores")
    (low, worst), (high, best) = ranked[0], ranked[-1]
    responses = [each["response"] for each in row["completions"]]
    margin = high - low
    return {"prompt": row["instruction"], "chosen": responses[best], "rejected": responses[worst], "margin": margin}


def _kind(row: Row) -> str | None:
    return next((row[name] for name in _TYPES if isinstance(row.get(name), str)), None)


def describe_row(row: Row) -> str:
    """Its columns and their types, for messages about a row that is not understood."""
    return ", ".join(f"{name}: {type(value).__name__}" for name, value in row.items()) or "no columns"


FORMATS = (
    Format("conversational", "prompt, chosen and rejected, the prompt as messages", _fits_conversational, _as_it_is),
    Format("plain", "prompt, chosen and rejected as text", _fits_plain, _as_it_is),
    Format("dialogue", "chosen and rejected as whole conversations", _fits_dialogue, _split_dialogue),
    Format("hh", "chosen and rejected as text with the marks Human: and Assistant:", _fits_hh, _split_hh),
    Format("ultrafeedback", "instruction, completions with response and score", _fits_ultrafeedback, _best_and_worst),
)
