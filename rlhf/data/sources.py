"""Rows of a data set: a local JSON Lines, JSON or Parquet file, or a data set of the Hugging Face Hub by its id."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
INSTALL = "pip install 'rlhf-services[data]'"


class DataError(ValueError):
    """Data that cannot be read or understood; says which row, what was seen and what to do."""


def read_rows(source: str, *, split: str = "train", limit: int | None = None) -> Iterator[Row]:
    """The rows of a data set, one by one.

    Args:
        source: a file ending in .jsonl, .jsonl.gz, .json or .parquet, or `owner/name` on the Hub.
        split: of a data set on the Hub; a file has one.
        limit: at most so many rows; None: all.

    Raises:
        DataError: there is no such file, its ending is unknown, or a row is not an object; a package is not installed.
    """
    path = Path(source)
    if path.is_file():
        rows = _read_file(path)
    elif HUB_ID.fullmatch(source) and not path.suffix.lower().startswith((".json", ".parquet")):
        rows = _read_hub(source, split)
    else:
        raise DataError(f"{source} is no file, and no id of a data set on the Hub, which looks like owner/name")
    return islice(rows, limit)


def _read_file(path: Path) -> Iterator[Row]:
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        return checked_text(path, _read_lines(path))
    if name.endswith(".json"):
        return checked_text(path, _read_array(path))
    if name.endswith(".parquet"):
        return _read_parquet(path)
    raise DataError(f"{path} ends in {path.suffix or 'nothing'}; send .jsonl, .jsonl.gz, .json or .parquet")


def checked_text(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a text file. Raises DataError where it is not UTF-8."""
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error


def _read_lines(path: Path) -> Iterator[Row]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number} is no JSON ({error}): {line.strip()[:80]!r}") from error
            yield _object(row, f"{path}, line {number}")


def _read_array(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); a file with an object a line should end in .jsonl") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds {type(rows).__name__}; send an array of objects, or .jsonl")
    for index, row in enumerate(rows):
        yield _object(row, f"{path}, element {index}")


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; {INSTALL}") from error
    try:
        batches: Iterable[Any] = ParquetFile(path).iter_batches(batch_size=1024)
    except ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file ({error})") from error
    for batch in batches:
        yield from batch.to_pylist()


def _read_hub(name: str, split: str) -> Iterator[Row]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(f"{name}: reading the Hub needs the package datasets; {INSTALL}") from error
    try:
        rows = load_dataset(name, split=split)
    except Exception as error:  # the library's own, of many kinds: no network, no such data set, no such split
        raise DataError(f"{name}, split {split}: {type(error).__name__}: {error}") from error
    yield from (dict(row) for row in rows)


def _object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where} holds {type(row).__name__} {str(row)[:60]!r}; every row must be an object")
    return row
