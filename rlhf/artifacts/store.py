"""The artifact store: what training publishes and serving loads.

It is a folder that all processes share. With a remote copy, servers may have a folder of their own, which takes from
there what it lacks. Names follow one grammar, so no name from a request can leave the store.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from rlhf.artifacts.folders import make_folder, verify_manifest
from rlhf.artifacts.remote import RemoteCopy
from rlhf.contracts.base import ARTIFACT_NAME_PATTERN
from rlhf.contracts.errors import InvalidInput, NotFound

ArtifactKind = Literal["adapters", "reward_models"]
VERSION_PATTERN = r"0|[1-9][0-9]{0,8}"
SERVING_PATIENCE_S = 20.0
"""Of a process that serves: whoever asks it waits."""
TRAINING_PATIENCE_S = 180.0
"""Of a process that publishes: its job waits, and then pauses."""
PULLED = "pulled"
"""The folder, of the store's, for versions that came from the remote copy."""
PULLED_KEPT = 8
"""Newest of a name's pulled versions that stay: PPO asks for the newest, and any other can be had again."""


class ArtifactStore:
    """Artifacts under one root: `{root}/{kind}/{name}/{version}/`; job folders under `{root}/jobs/{id}/`."""

    def __init__(self, root: Path, remote: RemoteCopy | None = None) -> None:
        """Args: root, a folder that processes share; remote, a copy of all that is published, for those that do not."""
        self.root, self.remote = root, remote

    def publish(self, kind: ArtifactKind, name: str, version: int, write: Callable[[Path], None]) -> str:
        """Publishes one version; publishing an existing version again keeps the first (a retried step is a no-op).

        Args:
            kind: what it is.
            name: the job that made it.
            version: 1, 2, ...
            write: writes the files into the folder it is given.

        Returns:
            The reference `name@version`.

        Raises:
            RemoteAway: it is published here, and not in the remote copy; publish it again.
        """
        folder = self._folder(kind, name, version)
        make_folder(folder, write)
        if self.remote is not None:
            self.remote.upload(f"{kind}/{name}/{version}", folder)
        return f"{name}@{version}"

    def resolve(self, kind: ArtifactKind, ref: str) -> Path:
        """The verified folder of `name@version`.

        Raises:
            InvalidInput: the reference does not follow the grammar.
            NotFound: no such artifact.
            Conflict: a file is missing or altered; says which.
            RemoteAway: it is not here, and the remote copy cannot be asked.
        """
        name, at, version = ref.partition("@")
        if not at or not re.fullmatch("[0-9]{1,9}", version):
            raise InvalidInput(f"{ref!r} is not a reference; write `job@version`, such as `ppo-1a2b3c4d@3`")
        folder = self._here(kind, name, int(version)) or self._pull(kind, name, int(version))
        if folder is None:
            newest = max(self.versions(kind, name), default=None)
            known = f"its newest version is {name}@{newest}" if newest is not None else f"nothing is named {name}"
            raise NotFound(f"{kind} {ref} does not exist; {known}")
        verify_manifest(folder)
        return folder

    def keep_from(self, kind: ArtifactKind, name: str, first: int, also: int | None = None) -> None:
        """Deletes the versions before `first` but `also`, and what a crash left. For the one who publishes them.

        Raises:
            RemoteAway: the remote copy has them yet.
        """
        folder = self.published(kind, name)
        for version in self.versions(kind, name):
            if version >= first or version == also:
                continue
            if self.remote is not None:
                self.remote.remove(f"{kind}/{name}/{version}")
            if (folder / str(version)).is_dir():
                # Out of the way in one move: half a version must not be found.
                (folder / str(version)).rename(folder / f".{version}.{uuid.uuid4().hex}")
        for left in folder.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)  # what cannot be deleted now is tried again at the next version

    def versions(self, kind: ArtifactKind, name: str) -> list[int]:
        """Published versions, ascending. Raises RemoteAway."""
        found = {path.name for path in self.published(kind, name).glob("*") if path.is_dir()}
        if self.remote is not None:
            found |= set(self.remote.below(f"{kind}/{name}"))
        return sorted(int(each) for each in found if re.fullmatch(VERSION_PATTERN, each))

    def has(self, kind: ArtifactKind, name: str, version: int) -> bool:
        """Whether a version can be had; the remote copy is asked only where it is not here. Raises RemoteAway."""
        return self._here(kind, name, version) is not None or version in self.versions(kind, name)

    def refs(self, kind: ArtifactKind) -> list[str]:
        """Every `name@version`, by name and then by version. Folders that follow another grammar are no artifacts.

        Raises:
            RemoteAway: the remote copy cannot be asked.
        """
        found = {path.name for path in (self.root / kind).glob("*")}
        if self.remote is not None:
            found |= set(self.remote.below(kind))
        names = sorted(each for each in found if re.fullmatch(ARTIFACT_NAME_PATTERN, each))
        return [f"{name}@{version}" for name in names for version in self.versions(kind, name)]

    def job_folder(self, job: str) -> Path:
        """The folder of one job's data, checkpoints and reports; made when absent. It has no remote copy."""
        folder = self.root / "jobs" / _checked(job)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def published(self, kind: ArtifactKind, name: str) -> Path:
        """The folder of all versions of a name; it may be absent."""
        return self.root / kind / _checked(name)

    def _folder(self, kind: ArtifactKind, name: str, version: int) -> Path:
        return self.published(kind, name) / str(version)

    def _pulled(self, kind: ArtifactKind, name: str, version: int) -> Path:
        return self.root / PULLED / kind / name / str(version)

    def _here(self, kind: ArtifactKind, name: str, version: int) -> Path | None:
        """The folder of a version that was published here or pulled before."""
        folders = self._folder(kind, name, version), self._pulled(kind, name, version)
        return next((folder for folder in folders if folder.is_dir()), None)

    def _pull(self, kind: ArtifactKind, name: str, version: int) -> Path | None:
        """The folder of a version that the remote copy has; None without one."""
        if self.remote is None:
            return None
        folder = self._pulled(kind, name, version)
        try:
            self.remote.download(f"{kind}/{name}/{version}", folder)
        except NotFound:
            return None
        pulled = sorted((path for path in folder.parent.glob("[0-9]*")), key=lambda path: path.stat().st_mtime_ns)
        for path in pulled[:-PULLED_KEPT]:
            shutil.rmtree(path, ignore_errors=True)
        return folder


def open_store(root: Path, remote: str | None, *, patience_s: float) -> ArtifactStore:
    """The store of a process that publishes or serves.

    Args:
        root: of the store.
        remote: address of a copy; None: there is none.
        patience_s: seconds that a request to the copy is tried again.

    Raises:
        ValueError: the address is none.
    """
    return ArtifactStore(root, None if remote is None else RemoteCopy(remote, patience_s=patience_s))


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
