"""The gold judge of the demo's task *answer briefly and completely*: a deterministic rubric, not a learned model.

It reads the prompt and the response, nothing else, and judges form: whether the answer ends, is brief, stays with the
prompt's topic and says something, not whether it is true. PPO never sees it; it labels the preference pairs and
measures the policy before and after.

    total = finish * prose * fresh * loop_free * plain * (0.05 + 0.25 length + 0.50 topic + 0.20 varied)

Each factor has a floor of its own; every part is in [0, 1], higher is better:

    finish     ends with a finished sentence (1), or was cut off: at most 0.45, growing with the share already finished
    prose      reads as sentences: function words, a verb, letters; a request for a list may be met by its items
    fresh      adds something to the prompt's own words, and does not copy it
    loop_free  no loop: falls once more than a fifth of the trigrams repeat, or a word stutters
    plain      no empty phrases ("As an AI", "Great question", ...)
    length     5 to 25 words, with ramps on both sides
    topic      mentions enough of the prompt's content words; more than enough earns nothing; a list has its items
    varied     few repeated trigrams and content words
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from rlhf.demo.lexicon import EMPTY_PHRASES, FUNCTION_WORDS, INSTRUCTION_WORDS, VERBS
from rlhf.evaluation.text_metrics import is_finished

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*|\d+(?:[.,:]\d+)*")
_SENTENCE_END = re.compile(r"""(?<=[a-z0-9"')\]][.!?])["')\]]*\s+|(?<=[a-z]{2}[.!?]["')])\s+""", re.IGNORECASE)
_MARKER = re.compile(r"^\s*(?:\d{1,2}[.)]|[-*•])(?:\s+|$)", re.MULTILINE)
_INLINE_MARKER = re.compile(r"(?:^|\s)\d{1,2}[.)]\s+")
_LIST_REQUEST = re.compile(r"^(?:list|name|give me|what are) (one|two|three|four|five)\b")
_REWRITE_REQUEST = re.compile(r"^(?:rewrite|make this sentence|correct|say this)\b[^:]*:")
_SUMMARY_REQUEST = re.compile(
    r"^(?:summarize|sum up|give a short summary|what is the main point of this text)[^:?]*[:?]"
)
_SUFFIXES = ("ingly", "edly", "ing", "ies", "ied", "est", "ed", "es", "ly", "er", "s", "e", "y")
_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


@dataclass(frozen=True)
class RubricScore:
    """A response's score and its parts, each in [0, 1]; see the module's text for what they mean."""

    total: float
    finish: float
    prose: float
    fresh: float
    loop_free: float
    plain: float
    length: float
    topic: float
    varied: float


def score(prompt: str, response: str) -> RubricScore:
    """Judge one response.

    Args:
        prompt: The user's message, without the system prompt.
        response: The model's answer; surrounding white space does not matter.

    Returns:
        The total and its parts. An empty response, or one without a word, scores 0 in all of them.
    """
    prompt, response = _normalise(prompt), _normalise(response)
    words = _WORD.findall(_MARKER.sub(" ", response.lower()))
    if not words:
        return RubricScore(0, 0, 0, 0, 0, 0, 0, 0, 0)
    items = _count_items(response)
    wanted = _LIST_REQUEST.match(prompt.lower())
    asked = _COUNTS[wanted.group(1)] if wanted else 0
    rep3 = _repeated_share(words, 3)
    gates = {
        "finish": _score_finish(response),
        "prose": _score_prose(response, words, is_list=bool(asked) and items >= 2),
        "fresh": _score_fresh(prompt, words),
        "loop_free": (1 - 0.9 * _ramp(rep3, 0.2, 0.5)) * (0.2 if _stutters(words) else 1.0),
        "plain": _score_plain(prompt, response),
    }
    merits = {
        "length": _score_length(response, len(words), items),
        "topic": _score_topic(prompt, words, asked, items),
        "varied": 1 - max(_ramp(rep3, 0.0, 0.2), _ramp(_repeated_share(_content(words), 1), 0.2, 0.6)),
    }
    merit = 0.05 + 0.25 * merits["length"] + 0.50 * merits["topic"] + 0.20 * merits["varied"]
    return RubricScore(total=prod(gates.values()) * merit, **gates, **merits)


def _score_finish(response: str) -> float:
    """1 when finished; cut off, 0.15 to 0.45 with the share of the text that lies in finished sentences."""
    if is_finished(response):
        return 1.0
    lines = [line.strip() for line in response.splitlines() if line.strip()]
    is_item = [bool(_MARKER.match(line)) for line in lines]
    if sum(is_item) >= 2 and is_item[-1] and all(len(line.split()) <= 5 for line in lines[-sum(is_item) :]):
        return 0.8  # a list of bare items rarely carries full stops, but nothing shows that the last one is whole
    finished = "".join(sentence for sentence in _split_sentences(response)[:-1])
    return 0.15 + 0.30 * len(finished) / len(response)


def _score_prose(response: str, words: Sequence[str], *, is_list: bool) -> float:
    functions = [word for word in words if word in FUNCTION_WORDS]
    share = len(functions) / len(words)
    grammar = _ramp(share, 0.05, 0.2) * (1 - 0.7 * _ramp(share, 0.75, 0.95))
    if functions and len(words) > 6 and Counter(functions).most_common(1)[0][1] > 0.3 * len(words):
        grammar *= 0.3  # "the cat the purr the throat": one function word sprinkled over a heap
    if not any(word in VERBS or word.endswith(("s", "ed", "ing")) for word in words):
        grammar *= 0.5
    if response.count(",") > 0.3 * len(words):
        grammar *= 0.3
    if is_list:
        grammar = max(grammar, 1.0)
    letters = sum(char.isalpha() or char in " \n'.,!?" for char in response) / len(response)
    return grammar * (0.2 + 0.8 * _ramp(letters, 0.75, 0.88))


def _score_fresh(prompt: str, words: Sequence[str]) -> float:
    """Low for an echo: 0.05 for a copy, 0.3 when no content word is new; a rewrite has to change a word.

    A summary may use the text's words, but not its phrases; a sentence copied out of it is lazy but no echo: 0.35.
    """
    lowered = prompt.lower()
    rewrite = _REWRITE_REQUEST.match(lowered)
    if rewrite:
        instruction, source = _WORD.findall(rewrite.group()), _WORD.findall(lowered[rewrite.end() :])
        if _copied_share(words, instruction, 3) > 0:
            return 0.3
        changed = sum(((Counter(words) - Counter(source)) + (Counter(source) - Counter(words))).values())
        return (0.05, 0.7, 1.0)[min(changed, 2)]
    source = _WORD.findall(lowered)
    own = 1 - _ramp(_copied_share(words, source, 4), 0.4, 0.8)
    summary = _SUMMARY_REQUEST.match(lowered)
    if summary:
        is_extract = len(words) <= 0.6 * len(_WORD.findall(lowered[summary.end() :]))
        return max(0.35 if is_extract else 0.05, own)
    known = {_stem(word) for word in source}
    new = {_stem(word) for word in _content(words) if word not in INSTRUCTION_WORDS} - known
    return max(0.05, own * (0.3, 0.75, 1.0)[min(len(new), 2)])


def _score_plain(prompt: str, response: str) -> float:
    asked, answered = prompt.lower(), response.lower()
    found = sum(phrase in answered and phrase not in asked for phrase in EMPTY_PHRASES)
    return max(0.3, 0.7**found)


def _score_length(response: str, count: int, items: int) -> float:
    in_bounds = _ramp(count, 1, 5) * (1 - _ramp(count, 25, 50))
    too_many = items == 0 and len(_split_sentences(response)) > 3
    return in_bounds * (0.7 if too_many else 1.0)


def _score_topic(prompt: str, words: Sequence[str], asked: int, items: int) -> float:
    wanted = {_stem(word) for word in _content(_WORD.findall(prompt.lower())) if word not in INSTRUCTION_WORDS}
    if not wanted:
        return 0.8  # small talk such as "How are you?" names no topic; nothing to miss
    enough = min(4, ceil(0.6 * len(wanted)))
    mentioned = min(1.0, len(wanted & {_stem(word) for word in words}) / enough)
    if not asked:
        return mentioned
    return 0.5 * mentioned + 0.5 * (1.0, 0.5, 0.0)[min(abs(items - asked), 2)]


def _count_items(response: str) -> int:
    """How many items a response lists: marked lines, numbered inline items, or parts of an enumeration; 0 for none."""
    marked = max(len(_MARKER.findall(response)), len(_INLINE_MARKER.findall(response)))
    if marked >= 2:
        return marked
    enumerations = (
        len(re.findall(r",\s+(?!and\b|or\b)|,?\s+(?:and|or)\s+", sentence.lower()))
        for sentence in _split_sentences(response)
    )
    separators = max(enumerations, default=0)
    return separators + 1 if separators else 0


def _copied_share(words: Sequence[str], source: Sequence[str], n: int) -> float:
    """Share of the words that lie inside an n-gram of the source."""
    grams = set(zip(*(source[i:] for i in range(n)), strict=False))
    covered: set[int] = set()
    for start in range(len(words) - n + 1):
        if tuple(words[start : start + n]) in grams:
            covered.update(range(start, start + n))
    return len(covered) / len(words)


def _repeated_share(words: Sequence[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _stutters(words: Sequence[str]) -> bool:
    return any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False))


def _split_sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text.strip()) if part.strip()]


def _content(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in FUNCTION_WORDS]


def _stem(word: str) -> str:
    """Cut one common ending, so that `cats`, `cat` and `purring`, `purr` meet; crude on purpose."""
    word = word.removesuffix("'s")
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            stem = word.removesuffix(suffix)
            return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem
    return word


def _normalise(text: str) -> str:
    return text.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"').strip()


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high`, straight in between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
