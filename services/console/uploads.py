"""Benchmarks as people upload them: each file read as `rlhf evaluate` reads it where it lies. No HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from rlhf.data.sources import DataError
from services.console.forms import File

Found = TypeVar("Found")
ENDINGS = (".csv", ".jsonl", ".json")
"""Compressed ones are not among them: a small body may hold gigabytes."""
_UNSAFE = re.compile(r"[^\w.-]")


def read_files(files: Sequence[File], read: Callable[[str], Sequence[Found]]) -> list[Found]:
    """What all files hold.

    Args:
        files: uploaded.
        read: gives the rows of the file at a path; raises DataError for what it cannot read.

    Raises:
        ValueError: a file cannot be read or is empty; names it as its owner does.
    """
    found: list[Found] = []
    for file in files:
        # Its name is a stranger's: the path has it only without what means something to a file system.
        name = _UNSAFE.sub("_", file.name)[-100:].lstrip(".") or "file"
        if not name.lower().endswith(ENDINGS):
            raise ValueError(f"{file.name!r} ends in none of {', '.join(ENDINGS)}; convert it, or use rlhf evaluate")
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(file.content)
            try:
                rows = read(str(path))
            except DataError as error:
                raise ValueError(str(error).replace(f"{folder}/", "")) from error
        if not rows:
            raise ValueError(f"{file.name} has no rows")
        found += rows
    return found
