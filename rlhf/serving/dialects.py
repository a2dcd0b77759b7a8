"""Tells a body's dialect by the field that only this dialect has, for routes that take several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Discriminator


def by_field(dialects: Mapping[str, str], expected: str) -> Discriminator:
    """A discriminator over tagged requests.

    Args:
        dialects: the tag by the name of the field that tells it, the one looked for first at the beginning.
        expected: what a body is, for the message to one that has none of these fields.
    """

    def tell(body: Any) -> str | None:
        fields = body if isinstance(body, dict) else getattr(body, "model_fields_set", ())
        return next((dialect for name, dialect in dialects.items() if name in fields), None)

    return Discriminator(
        tell, custom_error_type="unknown_dialect", custom_error_message=f"the body is a JSON object with {expected}"
    )
