"""Redis' own append-only file as a witness: which batches were added to a job's stream, how often, and deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.trainer.experience.batch import ExperienceBatch, unpack


@dataclass
class Journal:
    """What happened to the stream of one job.

    Attributes:
        batches: by batch id.
        added: times that each batch id was added.
        kept: batch ids that were added and never deleted, with repetition.
    """

    batches: dict[str, ExperienceBatch] = field(default_factory=dict)
    added: Counter[str] = field(default_factory=Counter)
    kept: list[str] = field(default_factory=list)


def read_journal(folder: Path, job: str) -> Journal:
    """Reads what Redis has written so far. Args: folder, Redis' own; job, its id."""
    journal, stream, entries = Journal(), f"experience:{job}".encode(), dict[bytes, str]()
    for path in sorted(folder.rglob("*.aof")):
        for command in _commands(path.read_bytes()):
            if command[1:2] != [stream]:
                continue
            if command[0].upper() == b"XADD":
                # XADD stream [options] entry "id" batch-id "batch" bytes
                entry, _, batch_id, _, batch = command[-5:]
                entries[entry] = batch_id.decode()
                journal.added[entries[entry]] += 1
                journal.batches[entries[entry]] = unpack(batch)
            elif command[0].upper() == b"XDEL":
                for entry in command[2:]:
                    entries.pop(entry, None)
    journal.kept = sorted(entries.values())
    return journal


def _commands(data: bytes) -> Iterator[list[bytes]]:
    """The commands of a file in Redis' protocol; one that a kill cut short ends it."""
    position = 0

    def line() -> bytes:
        nonlocal position
        end = data.index(b"\r\n", position)
        found, position = data[position:end], end + 2
        return found

    try:
        while position < len(data):
            head = line()
            if not head.startswith(b"*"):
                continue  # a comment: the time of what follows
            command = []
            for _ in range(int(head[1:])):
                size = int(line()[1:])
                command.append(data[position : position + size])
                position += size + 2
            if position <= len(data):
                yield command
    except ValueError:
        return
