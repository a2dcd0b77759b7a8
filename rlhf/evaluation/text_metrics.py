"""Measures of generated text that need no model: repetition, diversity, endings. They say nothing about quality.

Words are runs of letters, digits and inner apostrophes, in lower case; punctuation separates them and does not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_TERMINAL = re.compile(r"""[.!?]["'\u201d\u2019)\]*]*$""")
_UNFINISHED = re.compile(r"""(?:\.\.|\u2026)\W*$|(?:^|\n)\s*\d{1,2}\.$|[.!?:,;] \d{1,2}\.$""")

LOOP_LENGTH = 8
"""Words of the n-gram that makes a loop when it comes back."""

LOOP_COUNT = 3
"""How often that n-gram has to occur."""


def words(text: str) -> list[str]:
    """A text's words, as all measures here count them."""
    return [word.lower() for word in _WORD.findall(text)]


def outside_range(count: int, least: int, most: int) -> float:
    """How far a count of words is outside [least, most], as a share of the bound that it passes.

    -(least - L) / least below, -min(1, (L - most) / most) above, 0 within: in [-1, 0], and as steep on both sides.
    """
    if count < least:
        return (count - least) / least
    return max(-1.0, (most - count) / most) if count > most else 0.0


def rep_n(text: str, n: int) -> float:
    """Share of a text's word n-grams that repeat an earlier one: 1 - distinct / all.

    Args:
        text: One response.
        n: Words in an n-gram, 1 or more.

    Returns:
        A share in [0, 1); 0 for a text of fewer than n words.

    Raises:
        ValueError: `n` is below 1.
    """
    grams = _ngrams(words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def seq_rep_4(texts: Sequence[str]) -> float:
    """Mean of `rep_n(text, 4)` over responses: seq-rep-4 of Welleck et al. 2020 (arXiv:1908.04319), here on words.

    Args:
        texts: Responses, at least one.

    Returns:
        A share in [0, 1).

    Raises:
        ValueError: `texts` is empty.
    """
    return _mean([rep_n(text, 4) for text in texts])


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of all responses together over all their n-grams (Li et al. 2016, arXiv:1510.03055).

    It falls as the amount of text grows, so compare only sets of similar size.

    Args:
        texts: Responses; n-grams do not cross from one into the next.
        n: Words in an n-gram, 1 or more.

    Returns:
        A share in [0, 1]; 0 when no response has n words.

    Raises:
        ValueError: `n` is below 1.
    """
    grams = [gram for text in texts for gram in _ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def is_finished(text: str) -> bool:
    """Whether a text ends in terminal punctuation that is neither an ellipsis nor a list marker's dot."""
    text = text.strip()
    return bool(_TERMINAL.search(text)) and not _UNFINISHED.search(text)


def finish_rate(texts: Sequence[str]) -> float:
    """Share of responses that end with a finished sentence, by `is_finished`.

    Not the share that ends by the model's own end-of-sequence token: that one needs the engine's finish reason.

    Raises:
        ValueError: `texts` is empty.
    """
    return _mean([is_finished(text) for text in texts])


def has_loop(text: str) -> bool:
    """Whether the same 8 words in a row occur three times or more; occurrences may overlap."""
    counts = Counter(_ngrams(words(text), LOOP_LENGTH))
    return any(count >= LOOP_COUNT for count in counts.values())


def loop_share(texts: Sequence[str]) -> float:
    """Share of responses with a loop, by `has_loop`.

    Raises:
        ValueError: `texts` is empty.
    """
    return _mean([has_loop(text) for text in texts])


def repeated_spans(text: str, n: int) -> list[tuple[int, int]]:
    """Where a text repeats itself, for marking it.

    Args:
        text: One response.
        n: Words in an n-gram, 1 or more.

    Returns:
        Character ranges [start, end), in order and disjoint: every occurrence of each n-gram that occurs at least
        twice, the first one included; words in a row that are all repeated give one range.

    Raises:
        ValueError: `n` is below 1.
    """
    matches = list(_WORD.finditer(text))
    grams = _ngrams([match.group().lower() for match in matches], n)
    counts = Counter(grams)
    repeated = {i + k for i, gram in enumerate(grams) if counts[gram] > 1 for k in range(n)}
    spans: list[tuple[int, int]] = []
    for index in sorted(repeated):
        start, end = matches[index].span()
        if index - 1 in repeated:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"n={n} words is no n-gram; use 1 or more")
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("got 0 responses, and a share of nothing is undefined; pass at least one")
    return sum(values) / len(values)
