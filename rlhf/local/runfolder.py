"""A run's folder: one run at a time, and whatever a killed run left there does not disturb the next."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class FolderBusy(RuntimeError):
    """Another run uses the folder; says which."""


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Makes the folder and holds it; the hold ends with this process, in whatever way that ends.

    Raises:
        FolderBusy: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise FolderBusy(
                f"{folder} is in use by process {lock.read().strip() or 'unknown'}; stop it, or give another --out"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder


def remove(folder: Path, names: Sequence[str]) -> None:
    """Removes these files and folders of an earlier run; anything else in the folder is left alone."""
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
