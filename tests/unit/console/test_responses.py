"""How responses are cut into pieces."""

import math

from rlhf.contracts.openai import ChatToken
from services.console.responses import Piece, mark_repeats, mark_tokens


def token(piece: bytes, probability: float = 1.0) -> ChatToken:
    return ChatToken(token="", bytes=list(piece), logprob=math.log(probability))


def test_a_repeated_n_gram_is_marked_where_it_occurs() -> None:
    assert mark_repeats("so it is, and so it is!") == [
        Piece("so it is", True),
        Piece(", and ", False),
        Piece("so it is", True),
        Piece("!", False),
    ]
    assert mark_repeats("") == []


def test_tokens_keep_their_text_and_probability() -> None:
    # é is C3 A9: its two tokens spell it together, and the last one shows it.
    pieces = mark_tokens([token(b"ol"), token(b"\xc3", 0.3), token(b"\xa9", 0.005)])
    assert [piece.text for piece in pieces] == ["ol", "", "é"]
    # 0.3 is below 0.5 alone; 0.005 below all four bounds.
    assert [piece.level for piece in pieces] == [0, 1, 4]
    assert math.isclose(pieces[1].probability, 0.3)
