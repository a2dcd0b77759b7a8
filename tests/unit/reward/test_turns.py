"""A rendered prompt gives back its turns, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.contracts.base import Message
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.reward import RewardSample
from rlhf.lm.chat import RenderedPrompt, render_messages
from services.reward.texts import RenderedSample
from services.reward.turns import TurnReader
from tests.tiny_models import CHAT_TEMPLATE, save_tokenizer

SYSTEM = Message(role="system", content="Be brief.\nAlways.")
FIRST = [
    Message(role="user", content="Hi"),
    Message(role="assistant", content="Hello."),
    Message(role="user", content="Bye"),
]
# As of SmolLM2: a system's turn of its own where the conversation has none.
DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are new.<|im_end|>\n' }}{% endif %}"
    + CHAT_TEMPLATE
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}" + CHAT_TEMPLATE


TEMPLATES = {"chatml": CHAT_TEMPLATE, "default": DEFAULT, "none": NO_SYSTEM, "plain": None}
TALKS = {"1": FIRST[:1], "3": FIRST, "s1": [SYSTEM, *FIRST[:1]], "s3": [SYSTEM, *FIRST]}
CASES = [(name, talk) for name in TEMPLATES for talk in TALKS if name != "none" or "s" not in talk]


@pytest.mark.parametrize(("name", "talk"), CASES)
def test_turns_come_back(tmp_path: Path, name: str, talk: str) -> None:
    tokenizer, turns = save_tokenizer(tmp_path), TALKS[talk]
    tokenizer.chat_template = TEMPLATES[name]
    reader = TurnReader(tokenizer)
    text = render_messages(tokenizer, turns, answer=True)
    read = reader.sample(RenderedSample(RenderedPrompt(text), "Yes."))
    assert read == RewardSample(prompt=turns, response="Yes.")


def test_a_sample_of_turns_stays_as_it_is(tmp_path: Path) -> None:
    sample = RewardSample(prompt="<|im_start|>", response="")
    assert TurnReader(save_tokenizer(tmp_path)).sample(sample) is sample


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<|im_start|>user\nHi",
        "Hi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>",
    ],
)
def test_what_the_template_never_writes_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be taken apart into turns.*send messages"):
        TurnReader(save_tokenizer(tmp_path)).sample(RenderedSample(RenderedPrompt(text), "Yes."))
