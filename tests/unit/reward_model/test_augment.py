"""Spoilt responses as extra rejected ones."""

import random
from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from rlhf.contracts.jobs import PreferencePair
from services.trainer.reward_model.augment import spoil, spoilt_pairs
from services.trainer.reward_model.data import Comparison, Role, read_pairs

LONG = "one two three four five six seven eight"


def pairs(count: int) -> list[Comparison]:
    return read_pairs([PreferencePair(prompt=str(i), chosen=f"{LONG} {i}", rejected="no") for i in range(count)])


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=6, max_size=30), st.integers(0, 10**6))
@example(["a"] * 7 + ["b", "a"] * 3, 1352)  # ends in circles already
def test_a_spoilt_text_is_made_of_its_words_and_is_another_one(words: list[str], seed: int) -> None:
    text = " ".join(words)
    spoilt = spoil(text, random.Random(seed))
    assert set(spoilt.split()) <= set(words)
    assert spoilt.strip()
    if len(set(words)) > 1 and words != words[::-1]:
        assert spoilt != text


def test_only_training_responses_are_spoilt_once_each() -> None:
    roles: list[Role] = ["train"] * 10 + ["validation"] * 5 + ["evaluation"] * 5
    data = pairs(20)
    made = spoilt_pairs(data, roles, fraction=0.5, seed=0)
    assert len(made) == 5
    train = {pair.key: pair.chosen for pair in data[:10]}
    assert all(train[pair.key] == pair.chosen != pair.rejected for pair in made)
    assert max(Counter(pair.key for pair in made).values()) == 1
    assert made == spoilt_pairs(data, roles, fraction=0.5, seed=0)


def test_responses_too_short_to_spoil_are_left_alone() -> None:
    data = read_pairs([PreferencePair(prompt="p", chosen="Yes, of course.", rejected="no")])
    assert spoilt_pairs(data, ["train"], fraction=1.0, seed=0) == []
