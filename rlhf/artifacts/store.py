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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from rlhf.contracts.base import ARTIFACT_NAME_PATTERN
from rlhf.contracts.errors import Conflict, InvalidInput, NotFound

ArtifactKind = Literal["adapters", "reward_models"]
MANIFEST = "manifest.json"
VERSION_PATTERN = r"0|[1-9][0-9]{0,8}"


class ManifestEntry(BaseModel):
    """What a file must be."""

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """`manifest.json`: every other file of an artifact, by its path in it."""

    files: dict[str, ManifestEntry]


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
        make_folder(self._folder(kind, name, version), write)
        return f"{name}@{version}"

    def resolve(self, kind: ArtifactKind, ref: str) -> Path:
        """The verified folder of `name@version`.

        Raises:
            InvalidInput: the reference does not follow the grammar.
            NotFound: no such artifact.
            Conflict: a file is missing or altered; says which.
        """
        name, at, version = ref.partition("@")
        if not at or not re.fullmatch("[0-9]{1,9}", version):
            raise InvalidInput(f"{ref!r} is not a reference; write `job@version`, such as `ppo-1a2b3c4d@3`")
        folder = self._folder(kind, name, int(version))
        if not folder.is_dir():
            newest = max(self.versions(kind, name), default=None)
            known = f"its newest version is {name}@{newest}" if newest is not None else f"nothing is named {name}"
            raise NotFound(f"{kind} {ref} does not exist; {known}")
        verify_manifest(folder)
        return folder

    def keep_from(self, kind: ArtifactKind, name: str, first: int, also: int | None = None) -> None:
        """Deletes the versions before `first` but `also`, and what a crash left. For the one who publishes them."""
        folder = self.published(kind, name)
        for version in self.versions(kind, name):
            if version < first and version != also:
                # Out of the way in one move: half a version must not be found.
                (folder / str(version)).rename(folder / f".{version}.{uuid.uuid4().hex}")
        for left in folder.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)  # what cannot be deleted now is tried again at the next version

    def versions(self, kind: ArtifactKind, name: str) -> list[int]:
        """Published versions, ascending."""
        folder = self.published(kind, name)
        return sorted(int(p.name) for p in folder.glob("*") if re.fullmatch(VERSION_PATTERN, p.name) and p.is_dir())

    def refs(self, kind: ArtifactKind) -> list[str]:
        """Every `name@version`, by name and then by version. Folders that follow another grammar are no artifacts."""
        names = sorted(p.name for p in (self.root / kind).glob("*") if re.fullmatch(ARTIFACT_NAME_PATTERN, p.name))
        return [f"{name}@{version}" for name in names for version in self.versions(kind, name)]

    def job_folder(self, job: str) -> Path:
        """The folder of one job's data, checkpoints and reports; made when absent."""
        folder = self.root / "jobs" / _checked(job)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def published(self, kind: ArtifactKind, name: str) -> Path:
        """The folder of all versions of a name; it may be absent."""
        return self.root / kind / _checked(name)

    def _folder(self, kind: ArtifactKind, name: str, version: int) -> Path:
        return self.published(kind, name) / str(version)


def listed_versions(paths: Iterable[str], kind: ArtifactKind) -> list[int]:
    """Versions among a job's files as the job API lists them, `adapters/3/adapter_config.json`, ascending.

    Beside the versions lies a folder with what was decided about them.
    """
    parts = (path.split("/") for path in paths)
    found = {each[1] for each in parts if each[0] == kind and len(each) > 2 and re.fullmatch(VERSION_PATTERN, each[1])}
    return sorted(map(int, found))


def _checked(name: str) -> str:
    if not re.fullmatch(ARTIFACT_NAME_PATTERN, name):
        raise InvalidInput(f"{name!r} is not a name; use a-z, 0-9 and '-', starting with a letter or digit, at most 63")
    return name


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
