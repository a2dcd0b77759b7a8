"""Finished cells as files: a run that was killed goes on behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf.demo.outcome import finite


def read_result(folder: Path, name: str, digest: str) -> dict[str, Any] | None:
    """A cell's result. None: there is none, or it is of another config.

    Args:
        folder: of the results.
        name: of the cell.
        digest: of its config.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    return dict(kept["result"]) if kept["digest"] == digest else None


def write_result(folder: Path, name: str, digest: str, result: dict[str, Any]) -> None:
    """Keeps a cell's result, whole or not at all. Args: as `read_result`; result, of the cell."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.tmp"
    text = json.dumps(finite({"digest": digest, "result": result}), indent=1, ensure_ascii=False, allow_nan=False)
    temporary.write_text(text + "\n")
    temporary.replace(folder / f"{name}.json")
