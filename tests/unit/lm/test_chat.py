"""Conversations as a chat template writes them."""

from pathlib import Path

import pytest

from rlhf.contracts.base import Message
from rlhf.contracts.errors import InvalidInput
from rlhf.lm.chat import encode_prompt
from tests.tiny_models import save_tokenizer

REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}hello"


def test_what_the_template_refuses_is_refused_with_its_words(tmp_path: Path) -> None:
    """As Gemma's does with a system's turn, and Mistral's with turns that do not alternate."""
    tokenizer = save_tokenizer(tmp_path)
    tokenizer.chat_template = REFUSING
    assert encode_prompt(tokenizer, "Hi")
    turns = [Message(role="system", content="Be brief."), Message(role="user", content="Hi")]
    with pytest.raises(InvalidInput, match="refuses a conversation of system, user: no system role"):
        encode_prompt(tokenizer, turns)
