"""What an evaluation has done: `evaluation/{section}.jsonl` in the job's folder, a line a unit, durable one by one.

A killed evaluation goes on with the first unit that has no whole line. One writer at a time: who holds the job's lease.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rlhf.artifacts.folders import write_durably
from services.trainer.evaluation.section import Row

FOLDER = "evaluation"


class Journal:
    """The units of one section, in order."""

    def __init__(self, folder: Path, section: str) -> None:
        """Reads what is there and cuts off what a crash left of a line. Args: folder, the job's."""
        self._path = folder / FOLDER / f"{section}.jsonl"
        self._path.parent.mkdir(exist_ok=True)
        text = self._path.read_bytes() if self._path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            os.truncate(self._path, len(whole))
        self._units: list[list[Row]] = [json.loads(line)["rows"] for line in whole.splitlines()]

    @property
    def done(self) -> int:
        """Units that need not be done again: the first so many."""
        return len(self._units)

    @property
    def rows(self) -> list[Row]:
        """Of all units, in order."""
        return [row for unit in self._units for row in unit]

    def add(self, rows: list[Row]) -> None:
        """Keeps the rows of the next unit; they are on disk when this returns."""
        with self._path.open("ab") as file:
            file.write(json.dumps({"unit": self.done, "rows": rows}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._units.append(rows)


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report, whole or not at all."""
    write_durably(path, json.dumps(report, indent=2, allow_nan=False).encode() + b"\n")
