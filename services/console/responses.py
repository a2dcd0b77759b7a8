"""Responses as a page shows them: cut into pieces, with what repeats marked and each token's probability. Pure."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.contracts.openai import ChatToken
from rlhf.evaluation.text_metrics import repeated_spans

NGRAM = 3
"""Words of an n-gram that is marked where a response repeats it."""
LEVELS = (0.5, 0.2, 0.05, 0.01)
"""Probabilities below which a token gets the next deeper shade."""


@dataclass(frozen=True)
class Piece:
    """A part of a response.

    Attributes:
        text: of it.
        repeated: it belongs to an n-gram that occurs more than once.
        logprob: of the token, nats; None where the piece is no token.
    """

    text: str
    repeated: bool
    logprob: float | None = None

    @property
    def probability(self) -> float | None:
        """Of the token."""
        return None if self.logprob is None else math.exp(self.logprob)

    @property
    def level(self) -> int:
        """0 for a likely token to 4 for a very unlikely one."""
        probability = self.probability
        return 0 if probability is None else sum(probability < bound for bound in LEVELS)


def mark_repeats(text: str) -> list[Piece]:
    """A text in pieces, in order: those in a repeated n-gram, and what is between them."""
    pieces, at = [], 0
    for start, end in repeated_spans(text, NGRAM):
        pieces += [Piece(text[at:start], False), Piece(text[start:end], True)]
        at = end
    return [piece for piece in (*pieces, Piece(text[at:], False)) if piece.text]


def mark_tokens(tokens: Sequence[ChatToken]) -> list[Piece]:
    """One piece a token. A character that several tokens spell stands with the last of them."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(bytes(token.bytes)) for token in tokens]
    spans, at, pieces = repeated_spans("".join(texts), NGRAM), 0, []
    for token, text in zip(tokens, texts, strict=True):
        end = at + len(text)
        # A token such as " the" belongs to the word, not to the space before it.
        first = at + len(text) - len(text.lstrip())
        repeated = any(start < end and first < stop for start, stop in spans)
        pieces.append(Piece(text, repeated and first < end, token.logprob))
        at = end
    return pieces
