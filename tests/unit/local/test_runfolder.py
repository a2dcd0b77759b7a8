import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.local.runfolder import FolderBusy, claimed, remove


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with claimed(folder), pytest.raises(FolderBusy, match=f"in use by process {os.getpid()};"), claimed(folder):
        pass
    with claimed(folder):
        pass


def test_a_killed_run_leaves_the_folder_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from rlhf.local.runfolder import claimed\n"
        "with claimed(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with claimed(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_only_what_a_run_makes_is_removed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "policy.log").write_text("old")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    remove(tmp_path, ("logs", "report.json", "report.html"))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
