"""What tests of all kinds share."""

from pathlib import Path

import pytest

from rlhf.local.weights import ensure_smollm2


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2-135M-Instruct; made once on this machine. Tests that use it carry its marker."""
    return ensure_smollm2()
