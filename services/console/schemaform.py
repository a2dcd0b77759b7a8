"""A form made from a message's schema: labels, bounds and choices are those of the settings themselves. No HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from rlhf.serving.service import describe_validation

FieldKind = Literal["integer", "number", "choice", "text"]


@dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        name: its path in the message, such as `rollout.temperature`.
        kind: of its value.
        description: of the setting, and its bounds where a browser cannot tell them; may be empty.
        minimum, maximum: bounds, inclusive.
        choices: of kind choice.
        optional: left empty it is null, otherwise its default.
        default: as text.
    """

    name: str
    kind: FieldKind
    description: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    optional: bool
    default: str

    @property
    def id(self) -> str:
        """Of its input on the page."""
        return self.name.replace(".", "-")

    @property
    def label(self) -> str:
        """For people."""
        return self.name.rpartition(".")[2].replace("_", " ")

    @property
    def hint(self) -> str:
        """Under its input."""
        default = f"default {self.default}" if self.default else "may be left empty" if self.optional else ""
        return "; ".join(filter(None, (self.description, default)))

    def parse(self, text: str) -> int | float | str:
        """A value as it was written; one that is no number stays text, for the message's own check to refuse."""
        kinds: dict[str, type[int] | type[float]] = {"integer": int, "number": float}
        try:
            return kinds[self.kind](text) if self.kind in kinds else text
        except ValueError:
            return text


class SchemaForm:
    """Some of a message's settings, in groups."""

    def __init__(self, model: type[BaseModel], groups: Mapping[str, tuple[str, ...]]) -> None:
        """Args: model, of the message; groups, paths of settings by the title that stands over them."""
        schema = model.model_json_schema()
        self.groups = {title: [_field(schema, name) for name in names] for title, names in groups.items()}

    @property
    def fields(self) -> Iterator[Field]:
        """All of them."""
        for fields in self.groups.values():
            yield from fields

    def write(self, body: Mapping[str, Any]) -> dict[str, str]:
        """What the inputs show: a body's own values, and defaults where it has none."""
        return {field.name: _text(_get(body, field.name, field.default)) for field in self.fields}

    def read(self, given: Mapping[str, str], base: Mapping[str, Any]) -> dict[str, Any]:
        """The body that a form stands for. Args: given, the inputs; base, settings that the form does not have."""
        body = _copy(base)
        for field in self.fields:
            text = given.get(field.name, "").strip()
            if text or field.optional:
                _set(body, field.name, field.parse(text) if text else None)
            else:
                _remove(body, field.name)
        return body


def sort_errors(error: ValidationError, names: set[str]) -> tuple[dict[str, str], list[str]]:
    """Messages by the field they belong to, and those of no field. Args: error; names, of the fields on the page."""
    beside: dict[str, str] = {}
    above: list[str] = []
    for each in error.errors(include_url=False):
        message = describe_validation([dict(each)])
        name = next((n for n in _prefixes(each["loc"]) if n in names), None)
        if name is None:
            above.append(message)
        else:
            beside.setdefault(name, message)
    return beside, above


def _prefixes(place: tuple[int | str, ...]) -> Iterator[str]:
    """`prompts.3.content`, `prompts.3`, `prompts`."""
    for length in range(len(place), 0, -1):
        yield ".".join(str(part) for part in place[:length])


def _field(schema: dict[str, Any], name: str) -> Field:
    place = schema
    for part in name.split("."):
        place = _resolve(schema, place)["properties"][part]
    kinds = [_resolve(schema, each) | {} for each in place.get("anyOf", [place])]
    kind = next(each for each in kinds if each.get("type") != "null")
    above, below = kind.get("exclusiveMinimum"), kind.get("exclusiveMaximum")
    if kind.get("type") == "integer":
        # Of integers a browser can tell every bound.
        kind |= {} if above is None else {"minimum": above + 1}
        kind |= {} if below is None else {"maximum": below - 1}
        above = below = None
    open_bounds = [f"above {above:g}"] if above is not None else []
    open_bounds += [f"below {below:g}"] if below is not None else []
    description = "; ".join([*filter(None, [place.get("description", "")]), *open_bounds])
    choices = tuple(kind.get("enum", ()))
    return Field(
        name=name,
        kind="choice" if choices else {"integer": "integer", "number": "number"}.get(kind.get("type", ""), "text"),  # type: ignore[arg-type]
        description=description,
        minimum=kind.get("minimum", above),
        maximum=kind.get("maximum", below),
        choices=choices,
        optional=any(each.get("type") == "null" for each in kinds),
        default=_text(place.get("default")),
    )


def _resolve(schema: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """Follows references, and of an optional group takes the group."""
    for each in place.get("anyOf", []):
        if "$ref" in each:
            place = each
    if "$ref" in place:
        found: dict[str, Any] = schema["$defs"][place["$ref"].rpartition("/")[2]]
        return found
    return place


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _copy(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) if isinstance(value, Mapping) else value for name, value in body.items()}


def _get(body: Mapping[str, Any], name: str, default: str) -> Any:
    found: Any = body
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def _set(body: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        body = body.setdefault(group, {})
    body[last] = value


def _remove(body: dict[str, Any], name: str) -> None:
    *groups, last = name.split(".")
    for group in groups:
        body = body.get(group, {})
    body.pop(last, None)
