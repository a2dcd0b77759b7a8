"""A copy of what is published, in an object store (S3, Google's, Azure's): for servers that share no filesystem.

Keys are the store's paths, `{kind}/{name}/{version}/{file}`. An object appears whole, and a version's manifest is
written last and removed first: a version is there when its manifest is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from rlhf.artifacts.folders import MANIFEST, Manifest, make_folder, sha256
from rlhf.contracts.errors import Conflict, NotFound, Unavailable

INSTALL = "pip install 'rlhf-services[objects]'"
CHUNK = 2**20
FRESH_S = 5.0
"""Seconds that small files, such as decisions, are taken as they were read: each request for `job@latest` asks."""


class RemoteAway(Unavailable):
    """The object store cannot be reached, or refuses."""


class RemoteCopy:
    """Versions in an object store. Its credentials come from the environment, as its own tools take them."""

    def __init__(self, url: str, *, patience_s: float) -> None:
        """Nothing is asked yet.

        Args:
            url: s3://BUCKET/PREFIX, gs://..., az://..., or file:///FOLDER, which must be there.
            patience_s: seconds that a request is tried again.

        Raises:
            ValueError: there is no such kind of store, or the library is not installed.
        """
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise ValueError(f"RLHF_STORE_REMOTE={url}: object stores need the package obstore; {INSTALL}") from error
        # Of the library's errors, two are Python's own: not found, and no permission.
        self._obstore, self._errors = obstore, (BaseError, OSError)
        self.url, self._read = url, dict[str, tuple[float, dict[str, bytes]]]()
        self._lock = threading.Lock()
        options: dict[str, Any] = {"retry_config": {"retry_timeout": timedelta(seconds=patience_s), "max_retries": 100}}
        if url.startswith("file:"):
            # Nothing to try again; and a folder without files is no more there than a key without objects.
            options = {"automatic_cleanup": True}
        opening: Any = from_url
        try:
            self._objects: Any = opening(url, **options)
        except (ValueError, *self._errors) as error:
            raise ValueError(
                f"RLHF_STORE_REMOTE={url} is no object store ({_first_line(error)}); write s3://BUCKET/PREFIX, "
                "gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"
            ) from error

    def upload(self, key: str, folder: Path) -> None:
        """Copies a version's folder; one that is there already stays as it is. Raises RemoteAway."""
        with self._reaching(key):
            if self._exists(f"{key}/{MANIFEST}"):
                return
            for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
                self._obstore.put(self._objects, f"{key}/{path.relative_to(folder).as_posix()}", path)
            self._obstore.put(self._objects, f"{key}/{MANIFEST}", folder / MANIFEST)

    def download(self, key: str, target: Path) -> None:
        """Makes a version's folder, whole or not at all.

        Raises:
            NotFound: the object store has no such version.
            Conflict: a file is missing or altered, or the manifest is none; says which.
            RemoteAway: it cannot be asked.
        """
        with self._reaching(key):
            try:
                text = bytes(self._obstore.get(self._objects, f"{key}/{MANIFEST}").bytes())
            except FileNotFoundError:
                raise NotFound(f"{self.url} has no {key}") from None
            make_folder(target, lambda folder: self._fill(key, text, folder))

    def put(self, key: str, data: bytes) -> None:
        """Writes a small file. Raises RemoteAway."""
        with self._reaching(key):
            self._obstore.put(self._objects, key, data)

    def read_all(self, key: str) -> dict[str, bytes]:
        """The files right under a key, by name, as they were at most a few seconds ago. Raises RemoteAway."""
        with self._lock:
            seen, found = self._read.get(key, (0.0, {}))
        if seen and time.monotonic() - seen < FRESH_S:
            return found
        with self._reaching(key):
            objects = self._obstore.list_with_delimiter(self._objects, key)["objects"]
            paths = [str(each["path"]) for each in objects]
            found = {PurePosixPath(path).name: bytes(self._obstore.get(self._objects, path).bytes()) for path in paths}
        now = time.monotonic()
        with self._lock:
            # Without what is no longer fresh: a client may ask for any number of jobs.
            self._read = {name: read for name, read in self._read.items() if now - read[0] < FRESH_S}
            self._read[key] = now, found
        return found

    def below(self, key: str) -> list[str]:
        """Names of what lies under a key as a folder. Raises RemoteAway."""
        with self._reaching(key):
            listed = self._obstore.list_with_delimiter(self._objects, key)["common_prefixes"]
        return [PurePosixPath(path).name for path in listed]

    def remove(self, key: str) -> None:
        """Deletes a version. Raises RemoteAway."""
        with self._reaching(key):
            paths = [str(each["path"]) for part in self._obstore.list(self._objects, key) for each in part]
            manifest = f"{key}/{MANIFEST}"
            for some in ([manifest] if manifest in paths else [], [path for path in paths if path != manifest]):
                if some:
                    self._obstore.delete(self._objects, some)

    def _exists(self, path: str) -> bool:
        try:
            self._obstore.head(self._objects, path)
        except FileNotFoundError:
            return False
        return True

    def _fill(self, key: str, manifest: bytes, folder: Path) -> None:
        try:
            files = Manifest.model_validate_json(manifest).files
        except ValidationError as error:
            raise Conflict(f"{MANIFEST} of {key} in {self.url} is none ({error}); publish it again") from error
        for name, entry in files.items():
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts or str(pure) in (".", MANIFEST):
                raise Conflict(f"{MANIFEST} of {key} in {self.url} names {name!r}, which is no file of a version")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                answer = self._obstore.get(self._objects, f"{key}/{name}")
            except FileNotFoundError:
                raise Conflict(f"{name} of {key} is missing in {self.url}; publish it again") from None
            if answer.meta["size"] == entry.bytes:
                with path.open("wb") as file:
                    for chunk in answer.stream(min_chunk_size=CHUNK):
                        file.write(chunk)
            if not path.is_file() or sha256(path) != entry.sha256:
                raise Conflict(f"{name} of {key} in {self.url} is not what its manifest says; publish it again")

    @contextmanager
    def _reaching(self, key: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise RemoteAway(
                f"{self.url} cannot be reached for {key} ({_first_line(error)}); look at its address, its credentials "
                "and the network policy"
            ) from error


def _first_line(error: BaseException) -> str:
    # The rest is the library's own account of its retries, a page long.
    return str(error).strip().partition("\n")[0][:300]
