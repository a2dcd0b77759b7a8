"""How reports write numbers, shares, times and responses. What cannot be told is a dash, never 0. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from rlhf.evaluation.readings import items, number
from rlhf.evaluation.text_metrics import repeated_spans

REPEATED_WORDS = 4  # rep-4's n: what the tables count is what the samples mark


def show_number(value: object, digits: int = 3) -> str:
    """Write a number for a table; a dash for anything that is not a finite number."""
    known = number(value)
    if known is None:
        return "–"
    if abs(known) >= 10:
        digits = min(digits, 1)
    plain = f"{known:,.{digits}f}" if known == 0 or 10**-digits <= abs(known) < 1e6 else f"{known:.{digits}g}"
    return plain.replace("-", "−")


def show_count(value: object) -> str:
    """Write a count, all of its digits; a dash for anything that is not a finite number."""
    known = number(value)
    return "–" if known is None else f"{known:,.0f}"


def show_share(value: object) -> str:
    """Write a share in per cent; a dash for anything that is not a finite number."""
    known = number(value)
    return "–" if known is None else f"{known * 100:.1f}%".replace("-", "−")


def show_points(value: object) -> str:
    """Write a difference of two shares in percentage points; a dash for anything that is not a finite number."""
    known = number(value)
    return "–" if known is None else f"{known * 100:.1f} points".replace("-", "−")


def show_duration(seconds: float | None) -> str:
    """Write a time that something took; a dash for None."""
    if seconds is None:
        return "–"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"


def show_moment(seconds: float | None) -> str:
    """Write a point in time, given in seconds since the epoch; a dash for None."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def mark_repeats(text: str) -> Markup:
    """Escape a response and wrap the 4-grams that occur in it more than once in `<mark>`."""
    parts, end = [], 0
    for start, stop in repeated_spans(text, REPEATED_WORDS):
        parts += [Markup("{}<mark>{}</mark>").format(text[end:start], text[start:stop])]
        end = stop
    return Markup("").join([*parts, text[end:]])


def list_facts(value: object) -> list[tuple[str, str]]:
    """Name and text of each entry; a list or a single value gets one row without a name."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(str(name), show_plain(each)) for name, each in value.items()]
    return [("", show_plain(value))]


def show_plain(value: object) -> str:
    """Write any JSON value as text; the items of a list with commas between."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(show_plain, value))
    return f"{value:,.0f}" if isinstance(value, float) else str(value)


def show_prompt(prompt: object) -> str:
    """Write a prompt as text: the only user turn as it is, longer conversations with the role before each turn."""
    if isinstance(prompt, str):
        return prompt
    turns = [turn for turn in items(prompt) if isinstance(turn, Mapping)]
    if len(turns) == 1 and turns[0].get("role") == "user":
        return str(turns[0].get("content", ""))
    return "\n\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in turns) or "–"
