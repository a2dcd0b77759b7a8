"""Expressions of strangers: what is found, what is refused, and that no search runs away."""

import time

import pytest

from rlhf.contracts.patterns import MOST_PLACES, Pattern, places


@pytest.mark.parametrize(
    ("expression", "text", "found"),
    [
        ("bomb", "a BOMB!", True),
        ("bomb", "a bombastic word", True),
        (r"\bbomb\b", "a bombastic word", False),
        (r"\bbomb\b", "the bomb.", True),
        (r"\d{3}-\d{4}", "call 555-1234", True),
        ("a|zebra", "the Zebra", True),
        ("über", "ÜBER", True),
        ("(?x) b o m b  # spelt out", "bomb", True),
        ("(?-i)bomb", "BOMB", False),
    ],
)
def test_a_pattern_is_found_anywhere_and_in_any_case(expression: str, text: str, found: bool) -> None:
    assert Pattern(expression, ignore_case=True).occurs_in(text) is found


def test_case_counts_where_it_is_asked_to() -> None:
    assert not Pattern("bomb", ignore_case=False).occurs_in("BOMB")


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("(", "unclosed group"),
        ("(?<=a)b", "look-around, including look-ahead and look-behind, is not supported"),
        (r"(a)\1", "backreferences are not supported"),
        (r"\w{1,1500}", "exceeds size limit"),
        ("((a?){200}){200}", "is 40000 letters long with its counts written out"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_reason(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match="the pattern") as caught:
        Pattern(expression, ignore_case=True)
    assert reason in str(caught.value)
    assert repr(expression) in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("abc", 3),
        (r"a\{3}\d", 5),  # a \{ 3 } \d
        ("[a-z]{2,5}x", 6),  # 5 classes, x
        ("(ab{3}){2}", 8),  # (1 + 3) × 2
        (r"((\d{3}\.){2}x)+", 9),  # (3 + 1) × 2 + 1
        ("a{0}b{,3}c{2,}", 5),  # 0 + 3 + 2; the further ones of c are a loop
        (")(", 1),
    ],
)
def test_counts_are_written_out_by_hand(expression: str, count: int) -> None:
    assert places(expression) == count


def test_what_would_never_end_by_backtracking_ends_at_once() -> None:
    pattern = Pattern("(a+)+$", ignore_case=True)
    started = time.perf_counter()
    assert not pattern.occurs_in("a" * 10_000 + "!")
    assert time.perf_counter() - started < 5


def test_the_largest_pattern_allowed_ends_too() -> None:
    expression = "(a?){1999}b"
    assert places(expression) == MOST_PLACES
    started = time.perf_counter()
    assert not Pattern(expression, ignore_case=True).occurs_in("a" * 4000)
    assert time.perf_counter() - started < 20
