"""Agreement against published numbers and an independent implementation."""

import pytest

from rlhf.evaluation.agreement import cohen_kappa, krippendorff_alpha


def test_kappa_by_hand() -> None:
    # Cohen's 2x2 layout with 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o = 35/50 = 0.7;
    # p_e = 0.5*0.6 + 0.5*0.4 = 0.5; kappa = 0.2 / 0.5 = 0.4.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_kappa_of_three_labels_is_scikit_learns() -> None:
    # sklearn.metrics.cohen_kappa_score of these 50 labels: 0.7323022010707911.
    assert cohen_kappa(FIRST, SECOND) == pytest.approx(0.7323022010707911, abs=1e-12)


FIRST = [2, 1, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 1, 2, 2, 1, 1, 1, 2, 0, 2, 2, 0, 1]
FIRST += [2, 1, 0, 2, 2, 2, 0, 0, 2, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 2, 1, 1, 0, 1]
SECOND = [2, 1, 2, 1, 1, 2, 0, 0, 0, 2, 1, 2, 1, 1, 2, 2, 1, 1, 1, 2, 0, 2, 2, 0, 2]
SECOND += [2, 1, 0, 2, 2, 2, 0, 2, 2, 0, 1, 0, 0, 1, 1, 2, 0, 1, 0, 0, 2, 1, 1, 1, 1]


def test_kappa_is_undefined_without_variation_and_for_nothing() -> None:
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None
    with pytest.raises(ValueError, match="0 items"):
        cohen_kappa([], [])
    with pytest.raises(ValueError, match="1 labels and 2"):
        cohen_kappa(["a"], ["a", "b"])


def test_alpha_of_krippendorffs_own_example() -> None:
    # Krippendorff 2011, section C: 4 observers, 12 units, missing data; nominal alpha = 0.743.
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    ratings = [[None if label == "." else label for label in row.split()] for row in rows]
    assert krippendorff_alpha(ratings) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_two_complete_annotators_by_hand() -> None:
    # Krippendorff 2011, section A: two observers, ten units, binary: o_01 = 4 of n = 20 values, n_0 = 14, n_1 = 6;
    # alpha = 1 - (20 - 1) * 4 / (14 * 6) = 0.095.
    ratings = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert krippendorff_alpha(ratings) == pytest.approx(1 - 19 * 4 / (14 * 6))


def test_alpha_is_undefined_without_variation_and_without_pairs() -> None:
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a", None], [None, "b"]]) is None
    assert krippendorff_alpha([]) is None
    with pytest.raises(ValueError, match=r"\[1, 2\] labels"):
        krippendorff_alpha([["a"], ["a", "b"]])
