"""What the learner worker gives its jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlhf.lm.loading import LanguageModel
from services.trainer.jobs.tasks import load_base_model
from services.trainer.settings import LearnerSettings
from tests.tiny_models import save_tiny_llama


@pytest.fixture
def threads() -> Iterator[int]:
    """A number of torch threads that is not the present one; the present one comes back afterwards."""
    before = torch.get_num_threads()
    yield before + 1
    torch.set_num_threads(before)


def test_the_base_model_is_loaded_with_its_share_of_the_cores(tmp_path: Path, threads: int) -> None:
    model = save_tiny_llama(tmp_path / "tiny")
    base = load_base_model(LearnerSettings(model=str(model), threads=threads))
    assert isinstance(base, LanguageModel)
    assert base.name == "tiny"
    assert torch.get_num_threads() == threads
