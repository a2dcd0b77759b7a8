"""What may have decided a judgement: the boxes of the form."""

from __future__ import annotations

REASONS = {
    "correct": "more correct",
    "complete": "more complete",
    "instruction": "does more of what was asked",
    "clear": "clearer",
    "brief": "briefer",
    "safe": "safer",
}
"""By the key that is stored, in the order of the form."""
MOST_COMMENT = 2000
"""Characters of a person's own words."""
