"""Which response of a pair stands first on the screen, and what a choice between first and second means. Pure."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

from services.console.store.models import Verdict

Side = Literal["a", "b"]


class Choice(StrEnum):
    """A verdict as the person sees it, who does not know which response is a."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"


def first_side(pair: int, person: int) -> Side:
    """The response that this person sees first: drawn once and for all, so that a page loaded again is the same."""
    return "b" if hashlib.sha256(f"{pair}:{person}".encode()).digest()[0] & 1 else "a"


def verdict_of(choice: Choice, first: Side) -> Verdict:
    """What a choice says of a and b."""
    if choice in (Choice.FIRST, Choice.SECOND):
        return Verdict.A if (choice is Choice.FIRST) == (first == "a") else Verdict.B
    return Verdict(choice.value)


def choice_of(verdict: Verdict, first: str) -> Choice:
    """The choice that a verdict was. Args: verdict; first, "a" or "b", the response that stood first."""
    if verdict in (Verdict.A, Verdict.B):
        return Choice.FIRST if verdict == first else Choice.SECOND
    return Choice(verdict.value)
