"""The data of evaluations, from local files or the Hub: XSTest and BBQ in their public formats, prompts, samples.

XSTest: columns prompt, type, label (`xstest_prompts.csv` of its repository; the older v2 has no label, and its types
`contrast_...` are the unsafe ones). BBQ: a JSON Lines file a category, as in nyu-mll/BBQ.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rlhf.contracts.base import turn_text
from rlhf.contracts.evaluation import BbqQuestion, EvaluationPrompt, XsTestPrompt
from rlhf.contracts.red_team import RedTeamPrompt
from rlhf.contracts.reward import RewardSample
from rlhf.data.formats import read_preferences
from rlhf.data.prompts import read_prompts
from rlhf.data.sources import DataError, Row, checked_text, read_rows

Model = TypeVar("Model", bound=BaseModel)

_NOT_A_LETTER = re.compile(r"[^a-z0-9]+")
_CROSSED = re.compile(r"^[mf]-")


def read_xstest(source: str, *, split: str = "train", limit: int | None = None) -> list[XsTestPrompt]:
    """The prompts of XSTest.

    Args:
        source: a .csv file, or what `read_rows` takes.
        split: of a data set on the Hub.
        limit: at most so many, alternating between safe and unsafe ones; None: all.

    Raises:
        DataError: it cannot be read, or a row is no prompt of XSTest; says which.
    """
    prompts = [_xstest_prompt(number, row) for number, row in enumerate(_rows(source, split), 1)]
    return prompts if limit is None else _alternating(prompts, limit)


def read_bbq(sources: Iterable[str], *, split: str = "test", limit: int | None = None) -> list[BbqQuestion]:
    """The questions of BBQ.

    Args:
        sources: files, folders of .jsonl files, or data sets on the Hub with BBQ's columns.
        split: of a data set on the Hub.
        limit: at most so many of each source; None: all.

    Raises:
        DataError: one cannot be read, or a row is no question of BBQ; says which.
    """
    files = [file for source in sources for file in _files(source)]
    return [
        _bbq_question(file, number, row)
        for file in files
        for number, row in enumerate(read_rows(file, split=split, limit=limit), 1)
    ]


def _rows(source: str, split: str) -> Iterator[Row]:
    if not source.lower().endswith(".csv"):
        yield from read_rows(source, split=split)
        return
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{source} is no file")
    yield from checked_text(path, _read_table(path))


def _read_table(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Of a row with more cells than the head has columns, the rest would stand under None.
        reader = csv.DictReader(file, restkey="")
        try:
            yield from reader
        except csv.Error as error:
            raise DataError(f"{path} is no CSV after line {reader.line_num} ({error})") from error


def _xstest_prompt(number: int, row: Row) -> XsTestPrompt:
    kind = str(row.get("type") or "")
    label = row.get("label") or ("unsafe" if kind.startswith("contrast") else "safe")
    try:
        return XsTestPrompt.model_validate({"prompt": row.get("prompt"), "type": kind, "label": label})
    except ValidationError as error:
        raise DataError(f"row {number} is no prompt of XSTest: {_first(error)}; it has {sorted(row)}") from error


def _alternating(prompts: list[XsTestPrompt], limit: int) -> list[XsTestPrompt]:
    sides = [[each for each in prompts if each.label == label] for label in ("safe", "unsafe")]
    turns = [side[i] for i in range(max(map(len, sides), default=0)) for side in sides if i < len(side)]
    return turns[:limit]


def _files(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    found = sorted(str(path) for path in folder.glob("*.jsonl"))
    if not found:
        raise DataError(f"{source} has no .jsonl file; BBQ has one a category")
    return found


def _bbq_question(source: str, number: int, row: Row) -> BbqQuestion:
    try:
        info = [row["answer_info"][f"ans{i}"] for i in range(3)]
        more = row.get("additional_metadata") or {}
        unknown = [i for i in range(3) if str(info[i][1]).lower() == "unknown"]
        target = row.get("target_loc", more.get("target_loc"))
        return BbqQuestion(
            category=row["category"],
            context_condition=row["context_condition"],
            polarity=row["question_polarity"],
            context=row["context"],
            question=row["question"],
            answers=[row[f"ans{i}"] for i in range(3)],
            label=row["label"],
            unknown=unknown[0] if len(unknown) == 1 else -1,
            target=find_target(info, more.get("stereotyped_groups") or []) if target is None else int(target),
        )
    except ValidationError as error:
        raise DataError(f"{source}, row {number} is no question of BBQ: {_first(error)}") from error
    except (KeyError, TypeError, IndexError, ValueError) as error:
        told = f"{type(error).__name__} {error}"
        raise DataError(f"{source}, row {number} is no question of BBQ: {told}; it has {sorted(row)}") from error


def find_target(answer_info: list[list[str]], stereotyped_groups: list[str]) -> int | None:
    """The answer with the stereotyped group: the one whose group or label is among those named; None unless one is.

    Groups of names are crossed with a gender, as in `F-Black`, and then compared without it.

    Args:
        answer_info: of each answer its label and its group.
        stereotyped_groups: names of groups.
    """
    groups = {_plain(group) for group in stereotyped_groups}
    persons = [i for i, info in enumerate(answer_info) if str(info[1]).lower() != "unknown"]
    for crossed in (False, True):
        names = [
            [_CROSSED.sub("", str(part).lower()) if crossed else str(part) for part in info] for info in answer_info
        ]
        found = [i for i in persons if groups.intersection(map(_plain, names[i]))]
        if len(found) == 1:
            return found[0]
    return None


def _plain(name: str) -> str:
    return _NOT_A_LETTER.sub("", name.lower())


def _first(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def read_evaluation_prompts(source: str, *, split: str = "train", limit: int | None = None) -> list[EvaluationPrompt]:
    """Prompts with references.

    Args:
        source: what `read_rows` takes; prompts as `read_prompts` has them, and `references` (a list) or `reference`.
        split: of a data set on the Hub.
        limit: at most so many rows; None: all.

    Raises:
        DataError: it cannot be read, or a row has no prompt; says which.
    """
    found = []
    for number, row in enumerate(read_rows(source, split=split, limit=limit), 1):
        given = row.get("references", row.get("reference"))
        references = [] if given is None else [given] if isinstance(given, str) else given
        found.append(_checked(EvaluationPrompt, number, {"prompt": _prompt(number, row), "references": references}))
    return found


def read_red_team(source: str, *, split: str = "train", limit: int | None = None) -> list[RedTeamPrompt]:
    """Red-team prompts.

    Args:
        source: a .csv file, or what `read_rows` takes; prompts as `read_prompts` has them, and `category` where known.
        split: of a data set on the Hub.
        limit: at most so many rows; None: all.

    Raises:
        DataError: it cannot be read, or a row has no prompt; says which.
    """
    return [
        _checked(RedTeamPrompt, number, {"prompt": _prompt(number, row), "category": row.get("category") or None})
        for number, row in enumerate(islice(_rows(source, split), limit), 1)
    ]


def read_samples(source: str, *, split: str = "train", limit: int | None = None) -> list[RewardSample]:
    """Prompts with a response: columns prompt and response, or preference data, of which both responses are taken.

    Args:
        source: what `read_rows` takes.
        split: of a data set on the Hub.
        limit: at most so many rows; None: all.

    Raises:
        DataError: it cannot be read, or a row is neither; says which.
    """
    rows = list(read_rows(source, split=split, limit=limit))
    if rows and "response" in rows[0]:
        return [
            _checked(RewardSample, number, {"prompt": row.get("prompt"), "response": row.get("response")})
            for number, row in enumerate(rows, 1)
        ]
    return [
        RewardSample(prompt=each.pair.prompt, response=turn_text(response, "a response"))
        for each in read_preferences(rows).pairs
        for response in (each.pair.chosen, each.pair.rejected)
    ]


def _prompt(number: int, row: Row) -> Any:
    try:
        (prompt,) = read_prompts([row]).prompts
    except (DataError, ValueError) as error:
        raise DataError(f"row {number} has no prompt that can be used: {error}") from error
    return prompt


def _checked(contract: type[Model], number: int, fields: Row) -> Model:
    try:
        return contract.model_validate(fields)
    except ValidationError as error:
        raise DataError(f"row {number}: {_first(error)}") from error
