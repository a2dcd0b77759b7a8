"""The engine on the real SmolLM2, beside transformers."""

import logging
from pathlib import Path

import pytest

from rlhf.lm.chat import encode_prompt
from rlhf.lm.loading import LanguageModel, load_language_model
from services.policy.engine.stops import decode_text
from tests.unit.policy.generating import Served, by_transformers, generate, serve

QUESTIONS = [
    "What is the capital of France?",
    "Hi!",
    "Name two fruits and say what colour each of them has.",
    "Count from one to ten.",
    "Why is the sky blue? Answer in one sentence.",
]
PENALTIES = {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3}


@pytest.fixture(scope="module")
def untouched(smollm2: Path) -> LanguageModel:
    return load_language_model(str(smollm2))


@pytest.fixture(scope="module")
def served(smollm2: Path) -> Served:
    return serve(load_language_model(str(smollm2)))


@pytest.mark.smollm2
@pytest.mark.parametrize("settings", [{}, PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("together", [1, 5])
def test_greedy_equals_transformers(
    untouched: LanguageModel, served: Served, settings: dict, together: int, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = [encode_prompt(untouched.tokenizer, question) for question in QUESTIONS[:together]]
    wanted = [by_transformers(untouched, prompt, max_new_tokens=24, **settings) for prompt in prompts]
    rows = generate(served, prompts, temperature=0.0, max_new_tokens=24, **settings)
    assert [row.token_ids for row in rows] == wanted
    assert "Paris" in decode_text(served.base.tokenizer, rows[0].token_ids)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
