import os
import subprocess
import sys

import pytest

from rlhf.local import memory
from rlhf.local.memory import MemorySampler


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "INTERVAL_S", 0.01)


def test_a_process_that_holds_64_mib_is_seen_to_hold_them() -> None:
    code = "import sys; held = bytearray(64 * 2**20); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with MemorySampler(lambda: {"holder": process.pid, "driver": os.getpid()}) as sampler:
            while "holder" not in sampler.peaks_mib:
                pass
        process.communicate(b"")
    peaks = sampler.peaks_mib
    assert 64 <= peaks["holder"] < 64 + 40
    assert peaks["total"] == pytest.approx(peaks["holder"] + peaks["driver"], rel=0.2)


def test_a_process_that_has_ended_counts_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with MemorySampler(lambda: {"gone": process.pid}) as sampler:
        while "gone" not in sampler.peaks_mib:
            pass
    assert sampler.peaks_mib == {"gone": 0.0, "total": 0.0}
