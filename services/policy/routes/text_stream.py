"""The text of a response while it grows: whole characters only, and nothing that may turn out to be a stop text."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

UNFINISHED = "�"
"""What a tokenizer writes for bytes that are not a whole character (yet)."""


@dataclass(frozen=True)
class Piece:
    """What one token adds to the text.

    Attributes:
        index: the token's place in the response.
        text: "" while a character is incomplete, or beyond a stop text. A special token shows its name.
        special: whether it is left out of the response's text.
    """

    index: int
    text: str
    special: bool


@lru_cache(maxsize=4)
def byte_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that stand for one byte in vocabularies of SentencePiece, with its character; "" beyond ASCII.

    Such a tokenizer decodes neighbouring ones together, and to nothing but `UNFINISHED` when they are not text: a
    line break (`<0x0A>`) becomes one when half a character follows. So none is certain before a run of them ends.
    """
    ids = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])
    unknown = (None, tokenizer.unk_token_id)
    return {token: chr(byte) if byte < 128 else "" for byte, token in enumerate(ids) if token not in unknown}


class TextStream:
    """Takes the tokens of one response, gives pieces that are certain; those that are not special make up its text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: list[str]) -> None:
        """Args: tokenizer, of the model; stops, texts that end the response and do not belong to it."""
        self._tokenizer, self._stops = tokenizer, stops
        self._special = frozenset(tokenizer.all_special_ids)
        self._bytes = byte_tokens(tokenizer)
        self._count = 0
        self._visible: list[int] = []
        # From `_prefix` on is decoded, since a token's text may depend on the one before; up to `_shown` is in `_text`.
        self._prefix = self._shown = 0
        self._text = ""
        self._given = 0
        self._held: deque[Piece] = deque()

    def add(self, token: int) -> list[Piece]:
        """Takes the next token; returns pieces that are certain by now, in order."""
        index, self._count = self._count, self._count + 1
        if token in self._special:
            self._held.append(Piece(index, self._decode([token], special=True), special=True))
        else:
            self._visible.append(token)
            self._held.append(Piece(index, "", special=False))
            if token not in self._bytes:
                self._grow()
        return self._release(self._certain())

    def finish(self) -> list[Piece]:
        """The response is complete: returns the pieces that were held back, cut at the first stop text."""
        if self._shown < len(self._visible):
            # What is left of a character is shown as it is.
            self._show(self._unshown())
        found = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        return self._release(min(found, default=len(self._text)), everything=True)

    def _grow(self) -> None:
        """Takes in the text that the visible tokens have more than before, when it ends with a whole character."""
        new = self._unshown()
        if new and not new.endswith(UNFINISHED):
            self._show(new)

    def _unshown(self) -> str:
        """The text of the visible tokens beyond those that are shown, incomplete characters and all."""
        before = self._decode(self._visible[self._prefix : self._shown])
        return self._decode(self._visible[self._prefix :])[len(before) :]

    def _show(self, new: str) -> None:
        """Gives new text to its tokens: to the last one, but for bytes at its beginning that are characters."""
        self._text += new
        tokens = self._visible[self._shown :]
        pieces = [i for i, piece in enumerate(self._held) if not piece.special][-len(tokens) :]
        for i, token in zip(pieces[:-1], tokens, strict=False):
            if not new or self._bytes.get(token) != new[0]:
                break
            self._held[i], new = replace(self._held[i], text=new[0]), new[1:]
        self._held[pieces[-1]] = replace(self._held[pieces[-1]], text=new)
        self._prefix, self._shown = self._shown, len(self._visible)

    def _certain(self) -> int:
        """How much of the text cannot be the beginning of a stop text, or what stands before one."""
        end = len(self._text)
        certain = end
        for stop in self._stops:
            at = self._text.find(stop, max(0, self._given - len(stop)))
            if at >= 0:
                certain = min(certain, at)
                continue
            longest = min(len(stop) - 1, end)
            overlap = next((n for n in range(longest, 0, -1) if self._text.endswith(stop[:n])), 0)
            certain = min(certain, end - overlap)
        return certain

    def _release(self, certain: int, *, everything: bool = False) -> list[Piece]:
        """Pieces whose text ends at or before `certain`; with everything, the others too, cut there."""
        pieces = []
        while self._held:
            piece = self._held[0]
            after = self._given if piece.special else self._given + len(piece.text)
            # A token whose character is incomplete waits for the one that completes it, or for the end.
            unfinished = not piece.special and not piece.text and self._shown < len(self._visible)
            if not everything and (after > certain or unfinished):
                break
            self._held.popleft()
            text = piece.text if piece.special else piece.text[: max(0, certain - self._given)]
            self._given = after
            pieces.append(Piece(piece.index, text, piece.special))
        return pieces

    def _decode(self, ids: list[int], *, special: bool = False) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False))


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], stops: list[str]) -> list[Piece]:
    """The pieces of a response that is complete, one a token, as its stream would give them."""
    text = TextStream(tokenizer, stops)
    return [piece for token in ids for piece in text.add(token)] + text.finish()
