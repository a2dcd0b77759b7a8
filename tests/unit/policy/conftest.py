"""Tiny models as the engine serves them, and the same untouched, for transformers' own generation."""

from pathlib import Path

import pytest

from rlhf.lm.loading import LanguageModel, load_language_model
from tests.tiny_models import save_tiny_gpt_neo, save_tiny_llama
from tests.unit.policy.generating import Served, serve


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "llama": save_tiny_llama(tmp_path_factory.mktemp("llama")),
        "gpt_neo": save_tiny_gpt_neo(tmp_path_factory.mktemp("gpt-neo")),
    }


@pytest.fixture(scope="session", params=["llama", "gpt_neo"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def untouched(folders: dict[str, Path], family: str) -> LanguageModel:
    return load_language_model(str(folders[family]))


@pytest.fixture(scope="session")
def served(folders: dict[str, Path], family: str) -> Served:
    return serve(load_language_model(str(folders[family])))


@pytest.fixture
def llama(folders: dict[str, Path]) -> LanguageModel:
    """A fresh one for each test, which may change it."""
    return load_language_model(str(folders["llama"]))
