"""The metric names in a PromQL expression. Not a parser: Prometheus itself parses, in the container tests."""

from __future__ import annotations

import re

WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "le"}
LABELS_OF = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"


def metric_names(expression: str) -> set[str]:
    """Names that are no function, keyword or label."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(LABELS_OF, " ", text)
    return set(re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", text)) - WORDS
