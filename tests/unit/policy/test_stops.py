import pytest
from transformers import PreTrainedTokenizerFast

from services.policy.engine.stops import StopMatcher, cut_at_stop, decode_text
from tests.tiny_models import save_tokenizer

EOS = 257


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """One token a byte, so that every text and every character crosses token boundaries."""
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def ends_at(tokenizer: PreTrainedTokenizerFast, text: str, stops: list[str]) -> int | None:
    """How many tokens the response has when its stop text is found."""
    matcher = StopMatcher(tokenizer, stops)
    return next((i for i, token in enumerate(ids_of(tokenizer, text), 1) if matcher.add(token)), None)


def test_a_stop_text_is_found_with_its_last_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert ends_at(tokenizer, "one STOP two", ["STOP"]) == len("one STOP")
    assert ends_at(tokenizer, "one STO two", ["STOP"]) is None


def test_the_first_of_several_wins(tokenizer: PreTrainedTokenizerFast) -> None:
    assert ends_at(tokenizer, "a, b. c", [".", ","]) == 2


def test_characters_of_several_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    # "é" is two bytes, "🙂" four: 1 + 2 + 4 tokens.
    assert ends_at(tokenizer, "aé🙂b", ["🙂"]) == 7


def test_a_window_that_begins_inside_a_character_finds_no_less(tokenizer: PreTrainedTokenizerFast) -> None:
    assert ends_at(tokenizer, "🙂" * 30 + "xy", ["xy"]) == 122  # 30·4 + 2


def test_special_tokens_do_not_part_a_stop_text(tokenizer: PreTrainedTokenizerFast) -> None:
    matcher = StopMatcher(tokenizer, ["ab"])
    a, b = ids_of(tokenizer, "ab")
    assert [matcher.add(a), *(matcher.add(256) for _ in range(40)), matcher.add(b)] == [False] * 41 + [True]


def test_text_is_cut_before_the_first_stop_text() -> None:
    assert cut_at_stop("one. two, three", [",", "."]) == "one"
    assert cut_at_stop("nothing", ["."]) == "nothing"


def test_text_leaves_special_tokens_out(tokenizer: PreTrainedTokenizerFast) -> None:
    assert decode_text(tokenizer, [*ids_of(tokenizer, "hi"), EOS]) == "hi"
