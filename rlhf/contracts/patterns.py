"""Regular expressions whose search takes time linear in the text, whatever the expression: a request may bring its own.

They are those of Rust's regex crate, which pydantic's core carries: no backtracking, hence neither look-around nor
backreferences. Python's own `re` would search `(a+)+$` in a few dozen letters for hours.
"""

from __future__ import annotations

import re

from pydantic_core import SchemaError, SchemaValidator, core_schema

MOST_PLACES = 2000
_PART = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|.", re.DOTALL)


class Pattern:
    """A compiled expression."""

    def __init__(self, expression: str, *, ignore_case: bool) -> None:
        """Compiles.

        Raises:
            ValueError: no such expression, or one too large; says why.
        """
        if (size := places(expression)) > MOST_PLACES:
            raise ValueError(
                f"the pattern {expression!r} is {size} letters long with its counts written out, and the limit is "
                f"{MOST_PLACES}; lower a count, or use * or +"
            )
        # In front and not around it: a comment of the verbose syntax at the end would hide a closing bracket.
        flagged = f"(?i){expression}" if ignore_case else expression
        try:
            self._search = SchemaValidator(core_schema.str_schema(pattern=flagged, regex_engine="rust-regex"))
        except SchemaError as error:
            reason = str(error).rpartition("error: ")[2].rpartition("SchemaError: ")[2].strip().rstrip(".")
            raise ValueError(
                f"the pattern {expression!r} cannot be used: {reason}; write it in the syntax of docs.rs/regex"
            ) from error

    def occurs_in(self, text: str) -> bool:
        """Whether it matches anywhere."""
        return self._search.isinstance_python(text)


def places(expression: str) -> int:
    """Letters and classes of an expression, its counts written out: `(ab{3}){2}` has 8.

    A search takes time in proportion to it, so that one count within another adds up to seconds.
    """
    sizes, last = [0], 0
    for part in _PART.findall(expression):
        if part == "(":
            sizes.append(0)
        elif part == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif part[0] == "{" and part[1:]:
            count = max(map(int, re.findall(r"\d+", part)), default=1)
            sizes[-1] += last * (count - 1)
            last *= count
        elif part not in "?*+|":
            last = 1
            sizes[-1] += 1
    return sum(sizes)
