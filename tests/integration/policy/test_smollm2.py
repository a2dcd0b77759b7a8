"""The engine on the real SmolLM2, beside transformers."""

import logging
from pathlib import Path

import pytest
import torch

from rlhf.lm.chat import encode_prompt
from rlhf.lm.loading import load_language_model
from services.policy.engine.decoding import check_cache
from services.policy.engine.linears import install_linears
from services.policy.engine.stops import decode_text
from tests.unit.policy.generating import generate

QUESTIONS = ["What is the capital of France?", "Hi!", "Name two fruits and say what colour each of them has."]


@pytest.mark.smollm2
def test_greedy_equals_transformers(smollm2: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = load_language_model(str(smollm2))
    prompts = [encode_prompt(base.tokenizer, question) for question in QUESTIONS]
    wanted = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = base.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=16,
                repetition_penalty=1.1,
                pad_token_id=base.tokenizer.pad_token_id,
            )
        wanted.append(output[0, len(prompt) :].tolist())
    install_linears(base.model, packed=True)
    check_cache(base.model)
    rows = generate(base, prompts, temperature=0.0, repetition_penalty=1.1)
    assert [row.token_ids for row in rows] == wanted
    assert "Paris" in decode_text(base.tokenizer, rows[0].token_ids)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
