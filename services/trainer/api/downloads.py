"""The files of a job: its folder, and under adapters/ and reward_models/ what it published. No others can be named."""

from __future__ import annotations

from pathlib import Path

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import NotFound
from rlhf.contracts.jobs import ArtifactFile

_PUBLISHED = ("adapters", "reward_models")


def list_files(store: ArtifactStore, job: str) -> list[ArtifactFile]:
    """All files, by path; unfinished ones (their name begins with a dot or ends in .tmp) are left out."""
    found = []
    for prefix, root in _roots(store, job).items():
        for path in sorted(root.rglob("*")):
            relative = path.relative_to(root)
            if relative.suffix == ".tmp" or any(part.startswith(".") for part in relative.parts):
                continue
            try:
                if path.is_file() and not path.is_symlink():
                    found.append(ArtifactFile(path=(Path(prefix) / relative).as_posix(), bytes=path.stat().st_size))
            except FileNotFoundError:
                # An old checkpoint was pruned while the list was made.
                continue
    return found


def find_file(store: ArtifactStore, job: str, name: str) -> Path:
    """The file of a listed path.

    Raises:
        NotFound: the job has no such file, or the path leaves the job's files.
    """
    roots = _roots(store, job)
    first, _, rest = name.partition("/")
    root, relative = (roots[first], rest) if first in _PUBLISHED else (roots[""], name)
    if "\0" not in relative:
        path = (root / relative).resolve()
        if path.is_relative_to(root.resolve()) and path.is_file():
            return path
    raise NotFound(f"job {job} has no file {name!r}; GET /jobs/{job}/artifacts lists its files")


def _roots(store: ArtifactStore, job: str) -> dict[str, Path]:
    return {"": store.job_folder(job)} | {kind: store.root / kind / job for kind in _PUBLISHED}
