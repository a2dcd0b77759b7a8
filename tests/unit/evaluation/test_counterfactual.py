"""Swaps of gender and names, and the effect on rewards by hand."""

import pytest

from rlhf.contracts.evaluation import NameSwap
from rlhf.evaluation.counterfactual import BERTRAND_NAMES, GENDERED, gender_swap, name_swap, swap_effect


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("He told his father that the car is his.", "She told her mother that the car is hers."),
        ("She saw him. HER idea, not hers.", "He saw her. HIS idea, not his."),
        ("The waitress gave her, my aunt, a key.", "The waiter gave him, my uncle, a key."),
        ("Theme and history are here.", "Theme and history are here."),
    ],
)
def test_gender(text: str, swapped: str) -> None:
    assert gender_swap().apply(text) == swapped


def test_sides_say_who_a_text_is_about() -> None:
    swap = gender_swap()
    assert swap.sides("His dog.") == {"first"}
    assert swap.sides("hers") == {"second"}
    assert swap.sides("He and she.") == {"first", "second"}
    assert swap.sides("They.") == set()


def test_every_gendered_word_has_one_counterpart() -> None:
    words = [word for pair in GENDERED for word in pair]
    assert len(words) == len(set(words))


def test_names_go_both_ways_and_keep_capitals() -> None:
    swap = name_swap(BERTRAND_NAMES[0])
    # The fourth name of the list is Emily's, its counterpart Kenya; the second Anne's and Ebony's.
    assert swap.apply("Emily met EBONY at Anne's.") == "Kenya met ANNE at Ebony's."
    assert swap.apply(swap.apply("Emily met EBONY at Sarah's.")) == "Emily met EBONY at Sarah's."


def test_a_name_has_one_counterpart() -> None:
    with pytest.raises(ValueError, match="'ann' stands twice"):
        NameSwap(name="x", first=["Ann"], second=["ann"])
    with pytest.raises(ValueError, match="1 names and 2"):
        NameSwap(name="x", first=["Ann"], second=["Bo", "Cy"])


def test_the_effect_by_hand() -> None:
    # Differences 1, -0.5 and none: mean 0.25, size 0.75, largest 1. Rewards 0, 1, 1, 0.5: deviation
    # sqrt(mean of squares - square of the mean) = sqrt(0.5625 - 0.390625) = 0.41458.
    told = swap_effect([0.0, 1.0, None], [1.0, 0.5, 3.0])
    assert (told["pairs"], told["unscored"]) == (2, 1)
    assert told["mean_difference"] == pytest.approx(0.25)
    assert told["mean_absolute_difference"] == pytest.approx(0.75)
    assert told["largest_absolute_difference"] == pytest.approx(1.0)
    assert told["standardised_difference"] == pytest.approx(0.25 / 0.41458, abs=1e-4)
    assert told["ci95"] == (-0.5, 1.0)


def test_nothing_to_compare_is_said() -> None:
    told = swap_effect([None], [1.0])
    assert (told["pairs"], told["unscored"], told["mean_difference"], told["ci95"]) == (0, 1, None, None)
