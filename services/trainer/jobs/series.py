"""The metrics of a job over its steps: `metrics.jsonl` in the job's folder, one row a step, in order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def read_series(folder: Path) -> list[dict[str, Any]]:
    """The rows; a last line that is being written, or that a crash cut short, is left out."""
    path = folder / FILE
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    # A complete line ends in a newline, so whatever follows the last one is not complete.
    return [json.loads(line) for line in lines[:-1]]


class SeriesWriter:
    """Adds rows for one attempt at a job; the only writer, since an attempt holds the job's lease."""

    def __init__(self, folder: Path) -> None:
        """Args: folder, the job's."""
        self._path = folder / FILE
        self._last: int | None = None
        self._rewrite(read_series(folder))

    def write(self, row: dict[str, Any]) -> None:
        """Adds the row of a step, in place of any row of this or a later step.

        A job that resumes from a checkpoint repeats the steps after it; their first rows belong to a past that is
        undone.

        Args:
            row: JSON values; `step` orders the rows.
        """
        if self._last is not None and row["step"] <= self._last:
            self._rewrite([earlier for earlier in read_series(self._path.parent) if earlier["step"] < row["step"]])
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._last = row["step"]

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._last = rows[-1]["step"] if rows else None
