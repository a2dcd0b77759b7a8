"""Streamed text: the pieces make up the whole text, and no piece has to be taken back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from services.policy.engine.stops import cut_at_stop, decode_text
from services.policy.routes.text_stream import TextStream
from tests.tiny_models import save_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """One token a byte; 256 and 257 are special."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    return save_tokenizer(folder)


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def streamed(tokenizer: PreTrainedTokenizerBase, ids: list[int], stops: list[str]) -> tuple[list[str], str]:
    """Texts given at each token, and the rest at the end; special tokens left out."""
    stream = TextStream(tokenizer, stops)
    given_at = ["".join(p.text for p in stream.add(token) if not p.special) for token in ids]
    return given_at, "".join(p.text for p in stream.finish() if not p.special)


@given(
    st.lists(st.integers(0, 257), max_size=40), st.lists(st.sampled_from(["ab", "b", "aab", "é", "x\n"]), max_size=3)
)
def test_pieces_make_up_the_whole_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], stops: list[str]) -> None:
    pieces, rest = streamed(tokenizer, ids, stops)
    assert "".join(pieces) + rest == cut_at_stop(decode_text(tokenizer, ids), stops)


@given(st.text(alphabet="ab\né漢", max_size=30), st.lists(st.sampled_from(["ab", "ba", "aab", "é漢"]), max_size=2))
def test_every_token_gets_one_piece_in_order(tokenizer: PreTrainedTokenizerBase, text: str, stops: list[str]) -> None:
    ids = ids_of(tokenizer, text)
    stream = TextStream(tokenizer, stops)
    indices = [piece.index for token in ids for piece in stream.add(token)]
    assert indices + [piece.index for piece in stream.finish()] == list(range(len(ids)))


def test_what_may_become_a_stop_text_is_held_back(tokenizer: PreTrainedTokenizerBase) -> None:
    # "a" may begin "abc", and so may "ab"; with "q" it is certain that they do not.
    assert streamed(tokenizer, ids_of(tokenizer, "xabq"), ["abc"]) == (["x", "", "", "abq"], "")
    assert streamed(tokenizer, ids_of(tokenizer, "xabc"), ["abc"]) == (["x", "", "", ""], "")
    # A response that ends in the middle of one has all of its text.
    assert streamed(tokenizer, ids_of(tokenizer, "xab"), ["abc"]) == (["x", "", ""], "ab")


def test_a_character_is_given_when_it_is_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = ids_of(tokenizer, "é!")  # é is two bytes
    assert streamed(tokenizer, ids, []) == (["", "é", "!"], "")
    assert streamed(tokenizer, ids[:1], []) == ([""], "�")


def test_special_tokens_are_shown_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    pieces = TextStream(tokenizer, []).add(257)
    assert [(piece.text, piece.special) for piece in pieces] == [("<|im_end|>", True)]
