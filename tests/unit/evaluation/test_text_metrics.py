"""Measures of text against counts made by hand."""

import pytest

from rlhf.evaluation import text_metrics as metrics


def test_rep_n_counts_what_repeats():
    # Bigrams of a b a b a: ab ba ab ba, 2 distinct of 4.
    assert metrics.rep_n("a b a b a", 2) == pytest.approx(0.5)
    # Trigrams: aba bab aba, 2 distinct of 3.
    assert metrics.rep_n("a b a b a", 3) == pytest.approx(1 / 3)
    assert metrics.rep_n("one two three four", 2) == 0.0


def test_rep_n_ignores_case_and_punctuation_and_keeps_apostrophes():
    # don't stop don't stop: bigrams "don't stop", "stop don't", "don't stop", 2 distinct of 3.
    assert metrics.rep_n("Don't stop! DON'T stop.", 2) == pytest.approx(1 / 3)


def test_text_shorter_than_n_repeats_nothing():
    assert metrics.rep_n("two words", 3) == 0.0
    assert metrics.rep_n("", 1) == 0.0


def test_seq_rep_4_is_a_mean_over_responses():
    # a b c d a b c d: 4-grams abcd bcda cdab dabc abcd, 4 distinct of 5: 0.2. The other has none: (0.2 + 0) / 2.
    assert metrics.seq_rep_4(["a b c d a b c d", "a b c d e"]) == pytest.approx(0.1)


def test_distinct_n_pools_responses_without_crossing_them():
    # a b | b a | a b: bigrams ab, ba, ab: 2 distinct of 3. Crossing would add bb and aa.
    assert metrics.distinct_n(["a b", "b a", "a b"], 2) == pytest.approx(2 / 3)
    # Words: a b b a a b, 2 distinct of 6.
    assert metrics.distinct_n(["a b", "b a", "a b"], 1) == pytest.approx(1 / 3)
    assert metrics.distinct_n(["a"], 2) == 0.0


@pytest.mark.parametrize(
    "text",
    ["It ends.", "Does it?", 'He said "yes."', "(It does!)", "1. One\n2. It ends.  ", "In 2013.", "It is 3."],
)
def test_finished(text):
    assert metrics.is_finished(text)


@pytest.mark.parametrize(
    "text",
    ["", "It is cut", "And so on...", "Well\u2026", "Take these:", "1. Wash it.\n2.", "Wash it. 2.", "one,"],
)
def test_not_finished(text):
    assert not metrics.is_finished(text)


def test_finish_rate():
    assert metrics.finish_rate(["Yes.", "No", "Why?", "Because of"]) == 0.5


def test_a_loop_is_eight_words_three_times():
    eight = "a b c d e f g h "
    assert not metrics.has_loop(eight * 2 + "a b c d e f g")
    assert metrics.has_loop(eight * 3)
    # The same word ten times holds its 8-gram at 10 - 8 + 1 = 3 places.
    assert metrics.has_loop("go " * 10)
    assert not metrics.has_loop("go " * 9)
    assert metrics.loop_share([eight * 3, eight, "a", "b"]) == 0.25


def test_repeated_spans_mark_every_occurrence():
    text = "The cat sat. A dog and the cat sat!"
    # "The cat sat" is characters 0 to 11, and 23 to 34 once more.
    assert metrics.repeated_spans(text, 3) == [(0, 11), (23, 34)]
    assert [text[start:end] for start, end in metrics.repeated_spans(text, 3)] == ["The cat sat", "the cat sat"]
    assert metrics.repeated_spans(text, 4) == []


def test_repeated_spans_that_touch_become_one():
    # Bigrams ab, ba, ab: a b repeats at words 0-1 and 2-3, in a row: one range over all 7 characters.
    assert metrics.repeated_spans("a b a b", 2) == [(0, 7)]


def test_errors_say_the_value_and_the_cure():
    with pytest.raises(ValueError, match=r"n=0 .*use 1 or more"):
        metrics.rep_n("a", 0)
    for measure in (metrics.seq_rep_4, metrics.finish_rate, metrics.loop_share):
        with pytest.raises(ValueError, match="at least one"):
            measure([])
