"""What people write to name a model: `job@version`, or the base model."""

from __future__ import annotations

import re

from rlhf.contracts.base import ARTIFACT_REF_PATTERN

BASE = "base"
"""What the base model is called; to the policy, any name that is no reference is it."""


def wrong_reference(text: str, pattern: str = ARTIFACT_REF_PATTERN) -> str | None:
    """What is wrong with a reference, for people; None for none. Args: text; pattern, of its kind."""
    if not text or re.fullmatch(pattern, text):
        return None
    return f"{text!r} is no reference; write job@version, such as ppo-1a2b3c4d@20, or leave it empty"
