"""Loading models: what several threads of a process may do at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlhf.lm.loading import load_language_model
from tests.tiny_models import save_tiny_llama


def test_models_that_threads_load_at_once_have_their_weights(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "tiny")
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: load_language_model(str(tmp_path / "tiny")), range(24)))
    first = loaded[0].model.state_dict()
    for each in loaded:
        assert all((tensor == first[name]).all() for name, tensor in each.model.state_dict().items())
