"""Folders and files that appear whole or not at all, and the manifest by which a folder is known to be whole.

A folder is written under another name, synced and renamed; its manifest has the sha256 sum of every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rlhf.contracts.errors import Conflict

MANIFEST = "manifest.json"


class ManifestEntry(BaseModel):
    """What a file must be."""

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """`manifest.json`: every other file of an artifact, by its path in it."""

    files: dict[str, ManifestEntry]


def make_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Makes a folder whole or not at all, durable, with a manifest; one that is there already stays as it is.

    Args:
        target: the folder.
        write: writes the files into the folder it is given.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        write(temporary)
        write_manifest(temporary)
        try:
            temporary.rename(target)
        except OSError:
            # Another process made the same folder first; what is published is immutable, so theirs stands.
            if not target.exists():
                raise
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path) -> None:
    """Writes sha256 and size of every file beside them, and syncs all to disk."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        sync_file(path)
        files[str(path.relative_to(folder))] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}, indent=1))
    sync_file(manifest)
    sync_folder(folder)


def verify_manifest(folder: Path) -> None:
    """Checks that a folder holds the files of its manifest, as they were, and no others.

    Raises:
        Conflict: names the file that is missing, altered, unlisted, or no file of the folder's own.
    """
    ref = f"{folder.parent.name}@{folder.name}"
    try:
        # Not through links: what they lead to is not in the folder, and may be anything that this process can read.
        present = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
        link = min((name for name, path in present.items() if path.is_symlink()), default=None)
        if link is not None:
            raise Conflict(f"{link} of {ref} is a symbolic link; publish it again with the file itself")
        files = _read_manifest(folder)
        for name, entry in files.items():
            path = present.get(name)
            if path is None or not path.is_file():
                raise Conflict(f"{name} of {ref} is missing, or no path of a file in it; publish it again")
            if path.stat().st_size != entry.bytes or sha256(path) != entry.sha256:
                raise Conflict(f"{name} of {ref} is corrupt: its sha256 is not the manifest's; publish it again")
    except OSError as error:
        raise Conflict(f"{ref} cannot be read ({error}); mend the store, or publish it again") from error
    unlisted = {name for name, path in present.items() if path.is_file()} - set(files) - {MANIFEST}
    if unlisted:
        raise Conflict(f"{min(unlisted)} of {ref} is not in its manifest")


def _read_manifest(folder: Path) -> dict[str, ManifestEntry]:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes()).files
    except (OSError, ValidationError) as error:
        raise Conflict(f"{folder.name}/{MANIFEST} is unreadable ({error}); publish the artifact again") from error


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, in the place of one that is there; durable when this returns."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Makes a file's bytes durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes a folder's entries (renames, new files) durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
