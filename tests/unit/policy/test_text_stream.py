"""Streamed text: the pieces make up the whole text, and no piece has to be taken back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from services.policy.engine.stops import cut_at_stop, decode_text
from services.policy.routes.text_stream import TextStream, pieces_of
from tests.tiny_models import save_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """One token a byte; 256 and 257 are special."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    return save_tokenizer(folder)


def merging() -> PreTrainedTokenizerBase:
    """Bytes, and tokens of several: characters, words with their space, halves of characters with their neighbour."""
    merges = [("a", "b"), ("ab", "c"), ("Ġ", "a"), ("Ã", "©"), ("b", "Ã"), ("æ", "¼"), ("c", "Ċ"), ("Ġ", "Ġ")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")


def falling_back() -> PreTrainedTokenizerBase:
    """As SentencePiece's of Llama 2: words with their space, the first one's dropped, and what is no word in bytes."""
    words = ["▁", "▁▁", "▁a", "▁ab", "a", "b", "ab", "abc", "é", "x"]
    vocab = {token: i for i, token in enumerate(["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


VOCABULARIES = {"merging": merging(), "falling back": falling_back()}


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


@pytest.mark.parametrize("name", VOCABULARIES)
@given(st.data())
def test_so_do_those_of_other_vocabularies(name: str, data: st.DataObject) -> None:
    tokenizer = VOCABULARIES[name]
    # Half of the tokens are of several bytes, which stop texts then begin or end inside of.
    tokens = st.integers(0, len(tokenizer) - 1) | st.integers(len(tokenizer) - 12, len(tokenizer) - 1)
    ids = data.draw(st.lists(tokens, max_size=30))
    stops = data.draw(st.lists(st.sampled_from(["ab", "bc", "b a", "c\n", "é", " a", "x "]), max_size=3))
    pieces, rest = streamed(tokenizer, ids, stops)
    assert "".join(pieces) + rest == cut_at_stop(decode_text(tokenizer, ids), stops)


def test_bytes_are_given_when_it_is_certain_what_they_are() -> None:
    tokenizer = VOCABULARIES["falling back"]
    line, half, other, word = (tokenizer.convert_tokens_to_ids(t) for t in ("<0x0A>", "<0xC3>", "<0xA9>", "ab"))
    # A line break alone stays one. Before half a character this vocabulary makes neither of them text.
    assert streamed(tokenizer, [word, line, word], []) == (["ab", "", "\nab"], "")
    assert streamed(tokenizer, [line, half, word], []) == (["", "", "��ab"], "")
    assert streamed(tokenizer, [line, half], []) == (["", ""], "��")
    stream = TextStream(tokenizer, [])
    pieces = [piece for token in (line, half, other, word) for piece in stream.add(token)]
    assert [piece.text for piece in pieces] == ["\n", "", "", "éab"], "the line break is its own token's"


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


def test_pieces_of_a_whole_response_hold_whole_characters(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = [*ids_of(tokenizer, "a🙂é!"), 257]
    texts = [piece.text for piece in pieces_of(tokenizer, ids, [])]
    assert texts == ["a", "", "", "", "🙂", "", "é", "!", "<|im_end|>"]
    assert [piece.text for piece in pieces_of(tokenizer, ids, ["é!"])] == [*texts[:6], "", "", "<|im_end|>"]
