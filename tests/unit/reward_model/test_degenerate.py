"""What is done to a text, by what is left of it."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.reward_model.degenerate import DEGENERATE, FOREIGN, cut, foreign, loop, shuffle
from services.trainer.reward_model.detection import detection_figures

TEXT = "one two three four five six seven eight"


@given(st.integers(0, 10**6))
def test_each_way_by_its_mark(seed: int) -> None:
    words = TEXT.split()
    short = cut(TEXT, random.Random(seed)).split()
    assert short == words[: len(short)]
    assert 2 <= len(short) <= 6
    looped = loop(TEXT, random.Random(seed)).split()
    assert max(looped.count(word) for word in words) >= 3
    shuffled = shuffle(TEXT, random.Random(seed))
    assert sorted(shuffled.split()) == sorted(words)
    assert shuffled != TEXT
    strange = foreign(TEXT, random.Random(seed))
    assert len(strange.split()) >= len(words)
    assert not set(strange.split()) & set(words)


def test_there_are_sentences_and_nothing_between_them() -> None:
    assert len(FOREIGN) == 20
    assert all(sentence.endswith(".") and sentence == sentence.strip() for sentence in FOREIGN)


def test_detection_by_hand() -> None:
    # Ordinary 1 and 3; cut 2 (above one of two), foreign 4 (above both): 0.5, 1, together 3 of 4
    told = detection_figures({"signal": np.array([1.0, 3.0])}, {"signal": np.array([2.0, 4.0])}, ["cut", "foreign"])
    assert told["auroc_signal"] == {"all": 0.75, "cut": 0.5, "foreign": 1.0, "loop": None, "shuffle": None}
    assert told["texts"] == {"cut": 1, "foreign": 1, "loop": 0, "shuffle": 0}


def test_without_texts_nothing_can_be_told() -> None:
    told = detection_figures({"signal": np.array([1.0])}, {"signal": np.array([])}, [])
    assert told["auroc_signal"] == {"all": None} | dict.fromkeys(DEGENERATE)
