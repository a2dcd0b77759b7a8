"""The two that an evaluation measures, and how an answer of one stands on the page."""

from __future__ import annotations

from typing import Any

from rlhf.evaluation.formats import mark_repeats

SIDES = ("baseline", "adapter")
"""From left to right."""


def show_side(side: str, text: object, ending: str) -> dict[str, Any]:
    """A response. Args: side, one of SIDES; text, None where there is none; ending, stands below it."""
    return {
        "tone": {"baseline": "before", "adapter": "after"}[side],
        "heading": side.capitalize(),
        "text": mark_repeats(text) if isinstance(text, str) else None,
        "note": "",
        "ending": ending,
        "cut": False,
    }
