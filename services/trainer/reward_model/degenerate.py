"""Texts spoilt on purpose: cut off, looped, shuffled, or in another language. Not the pairs that are made of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

LEAST_WORDS = 6
"""Shorter texts, cut or shuffled, may be as good as before."""
FOREIGN = tuple((Path(__file__).parent / "foreign.txt").read_text("utf-8").splitlines())
"""Sentences in eight languages that are not English, written for this project."""


def cut(text: str, draw: random.Random) -> str:
    """The first quarter to three quarters of the words. Args: text, of LEAST_WORDS or more; draw, decides."""
    words = text.split()
    return " ".join(words[: draw.randint(len(words) // 4, 3 * len(words) // 4)])


def loop(text: str, draw: random.Random) -> str:
    """Goes on until some word, and then in circles of two to five. Args: as `cut`."""
    words = text.split()
    start = draw.randrange(len(words) - 4)
    phrase = words[start : start + draw.randint(2, 5)]
    looped = words[:start] + phrase * draw.randint(3, 6)
    # A text that ends in circles already may come out as it was: then one circle more.
    return " ".join(looped if looped != words else looped + phrase)


def shuffle(text: str, draw: random.Random) -> str:
    """The words in another order. Args: as `cut`."""
    words = text.split()
    shuffled = draw.sample(words, len(words))
    return " ".join(shuffled) if shuffled != words else " ".join(reversed(words))


def foreign(text: str, draw: random.Random) -> str:
    """Sentences of another language, at least as many words, so that length gives nothing away. Args: as `cut`."""
    sentences = [draw.choice(FOREIGN)]
    while sum(len(sentence.split()) for sentence in sentences) < len(text.split()):
        sentences.append(draw.choice(FOREIGN))
    return " ".join(sentences)


SPOILT: dict[str, Callable[[str, random.Random], str]] = {"cut": cut, "loop": loop, "shuffle": shuffle}
"""The ways that keep to the words of the text."""
DEGENERATE = {**SPOILT, "foreign": foreign}
