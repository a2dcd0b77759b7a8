"""The artifact store on a shared filesystem: what training publishes and serving loads.

An artifact appears whole or not at all (temporary folder, fsync, rename) and carries a manifest of sha256 sums that is
checked before use. Names follow one grammar, so no name from a request can leave the store.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rlhf.contracts.base import ARTIFACT_NAME_PATTERN
from rlhf.contracts.errors import Conflict, InvalidInput, NotFound

ArtifactKind = Literal["adapters", "reward_models"]
MANIFEST = "manifest.json"


class ArtifactStore:
    """Artifacts under one root: `{root}/{kind}/{name}/{version}/`; job folders under `{root}/jobs/{id}/`."""

    def __init__(self, root: Path) -> None:
        """Args: root, a folder that all processes share."""
        self.root = root

    def publish(self, kind: ArtifactKind, name: str, version: int, write: Callable[[Path], None]) -> str:
        """Publishes one version; publishing an existing version again keeps the first (a retried step is a no-op).

        Args:
            kind: what it is.
            name: the job that made it.
            version: 1, 2, ...
            write: writes the files into the folder it is given.

        Returns:
            The reference `name@version`.
        """
        target = self._folder(kind, name, version)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.parent / f".{version}.{uuid.uuid4().hex}"
            temporary.mkdir()
            try:
                write(temporary)
                write_manifest(temporary)
                try:
                    temporary.rename(target)
                except OSError:
                    # Another process published the same version first; the version is immutable, so theirs stands.
                    if not target.exists():
                        raise
                sync_folder(target.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return f"{name}@{version}"

    def resolve(self, kind: ArtifactKind, ref: str) -> Path:
        """The verified folder of `name@version`.

        Raises:
            InvalidInput: the reference does not follow the grammar.
            NotFound: no such artifact.
            Conflict: a file is missing or altered; says which.
        """
        name, at, version = ref.partition("@")
        if not at or not version.isdigit():
            raise InvalidInput(f"{ref!r} is not a reference; write `job@version`, such as `ppo-1a2b3c4d@3`")
        folder = self._folder(kind, name, int(version))
        if not folder.is_dir():
            newest = max(self.versions(kind, name), default=None)
            known = f"its newest version is {name}@{newest}" if newest is not None else f"nothing is named {name}"
            raise NotFound(f"{kind} {ref} does not exist; {known}")
        verify_manifest(folder)
        return folder

    def versions(self, kind: ArtifactKind, name: str) -> list[int]:
        """Published versions, ascending."""
        folder = self._folder(kind, name, 0).parent
        return sorted(int(p.name) for p in folder.glob("[0-9]*") if p.is_dir()) if folder.is_dir() else []

    def names(self, kind: ArtifactKind) -> list[str]:
        """Names with at least one version."""
        return sorted(p.name for p in (self.root / kind).glob("[a-z0-9]*") if self.versions(kind, p.name))

    def job_folder(self, job: str) -> Path:
        """The folder of one job's data, checkpoints and reports; made when absent."""
        folder = self.root / "jobs" / _checked(job)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _folder(self, kind: ArtifactKind, name: str, version: int) -> Path:
        return self.root / kind / _checked(name) / str(version)


def _checked(name: str) -> str:
    if not re.fullmatch(ARTIFACT_NAME_PATTERN, name):
        raise InvalidInput(f"{name!r} is not a name; use a-z, 0-9 and '-', starting with a letter or digit, at most 63")
    return name


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
    """Checks every file against the manifest.

    Raises:
        Conflict: names the file that is missing, altered or unlisted.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise Conflict(f"{folder.name}/{MANIFEST} is unreadable ({error}); publish the artifact again") from error
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise Conflict(f"{path.name} of {folder.parent.name}@{folder.name} is missing; publish it again")
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise Conflict(
                f"{path.name} of {folder.parent.name}@{folder.name} is corrupt: its sha256 is not the manifest's; "
                "publish it again"
            )
    unlisted = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - set(files) - {MANIFEST}
    if unlisted:
        raise Conflict(f"{sorted(unlisted)[0]} of {folder.parent.name}@{folder.name} is not in its manifest")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
