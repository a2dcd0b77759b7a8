"""The last lines of a service's log, JSON lines turned into text for people."""

from __future__ import annotations

import json
from pathlib import Path

TAIL_BYTES = 64 * 1024


def read_tail(log: Path, lines: int = 20) -> list[str]:
    """The last lines of a log, an exception's traceback included; empty when there is no log."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        raw = file.read().decode("utf-8", errors="replace").splitlines()
    return [text for line in raw[-lines:] for text in format_line(line)][-lines:]


def format_line(line: str) -> list[str]:
    """One line of a log: `level logger: message {fields}` when it is one of ours, else as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return [line]
    if not isinstance(record, dict) or "message" not in record:
        return [line]
    head = f"{record.pop('level', '')} {record.pop('logger', '')}: {record.pop('message')}".strip()
    exception = str(record.pop("exception", ""))
    record.pop("time", None)
    fields = " ".join(f"{key}={value}" for key, value in record.items())
    return [f"{head} {fields}".rstrip(), *exception.splitlines()]
