"""What tests of all kinds share."""

from pathlib import Path

import pytest
from hypothesis import settings

from rlhf.local.weights import ensure_smollm2

# No test asserts a time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2-135M-Instruct; made once on this machine. Tests that use it carry its marker."""
    return ensure_smollm2()
