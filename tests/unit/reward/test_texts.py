"""Where a prompt ends and its response begins, in a model's own chat template and in the plain one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.contracts.base import Message
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.reward import RewardSample
from rlhf.lm.chat import RenderedPrompt
from services.reward.texts import RenderedSample, TextReader, conversation
from tests.tiny_models import save_tokenizer

PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
HELLO = RenderedSample(RenderedPrompt(PROMPT), "Hello.")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TextReader:
    return TextReader(save_tokenizer(tmp_path_factory.mktemp("chat")))


def test_the_seam_is_what_the_template_writes_between_question_and_answer(reader: TextReader, tmp_path: Path) -> None:
    assert reader.seam == "<|im_end|>\n<|im_start|>assistant\n"
    assert TextReader(save_tokenizer(tmp_path, chat_template=False)).seam == "\nAnswer:"


@pytest.mark.parametrize("ending", ["", "<|im_end|>", "<|im_end|>\n"])
def test_a_chat_is_cut_at_its_last_answer_and_needs_no_ending(reader: TextReader, ending: str) -> None:
    assert reader.whole("input", PROMPT + "Hello." + ending) == HELLO
    assert reader.pair(PROMPT, "Hello." + ending) == HELLO
    again = PROMPT + "Hello.<|im_end|>\n" + PROMPT
    assert reader.whole("input", again + "Yes?" + ending) == RenderedSample(RenderedPrompt(again), "Yes?")


def test_the_first_token_may_be_left_to_the_server(reader: TextReader) -> None:
    # This tokenizer's BOS is <|im_start|>, with which its template begins.
    assert reader.whole("input", PROMPT.removeprefix("<|im_start|>") + "Hello.") == HELLO


def test_nothing_else_is_taken_from_a_response(reader: TextReader) -> None:
    assert reader.pair("Hi", " Hello. \n") == RewardSample(prompt="Hi", response=" Hello. \n")
    assert reader.pair(PROMPT + "<think>\n\n</think>\n\n", "Hello.").prompt == RenderedPrompt(
        PROMPT + "<think>\n\n</think>\n\n"
    )


def test_what_the_template_writes_around_an_answer_is_no_part_of_it(tmp_path: Path) -> None:
    reader = TextReader(save_tokenizer(tmp_path, chat_template=False))
    prompt = "Question: Hi\nAnswer:"
    # A conversation is written with a space and a line's end; of a pair nobody knows who wrote them.
    assert reader.whole("input", prompt + " Hello.\n") == RenderedSample(RenderedPrompt(prompt), "Hello.")
    assert reader.pair(prompt, " Hello.\n") == RenderedSample(RenderedPrompt(prompt), " Hello.\n")


@pytest.mark.parametrize("text", ["Air scatters blue light.", "", "<|im_start|>user\nHi<|im_end|>\n", "x" * 1000])
def test_a_text_that_is_no_chat_is_refused_with_the_cure(reader: TextReader, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^input\.3 is '.*messages") as refused:
        reader.whole("input.3", text)
    assert len(refused.value.message) < 500


def test_a_template_without_marks_tells_nothing(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"
    reader = TextReader(tokenizer)
    assert reader.pair("Hi\n", "Hello.") == RewardSample(prompt="Hi\n", response="Hello.")
    with pytest.raises(InvalidInput):
        reader.whole("input", "Hi\nHello.\n")


def test_messages_end_with_the_response() -> None:
    user, assistant = Message(role="user", content="Hi"), Message(role="assistant", content="Hello.")
    assert conversation([user, assistant]) == RewardSample(prompt=[user], response="Hello.")
    for wrong in ([user], [assistant], [user, assistant, user]):
        with pytest.raises(InvalidInput, match="end with the assistant's message"):
            conversation(wrong)
