"""Forms from schemas: what a setting says of itself becomes its input, and inputs become the message."""

from typing import Literal

from pydantic import Field, ValidationError

from rlhf.contracts.base import Contract
from services.console.schemaform import SchemaForm, sort_errors


class Group(Contract):
    rate: float = Field(0.5, gt=0, le=1, description="how fast")
    layers: int | None = Field(None, ge=1)


class Job(Contract):
    steps: int = Field(ge=1, lt=100)
    method: Literal["mean", "min"] = "mean"
    group: Group | None = Field(default_factory=Group)


FORM = SchemaForm(Job, {"All": ("steps", "method", "group.rate", "group.layers")})


def test_fields_have_the_bounds_of_their_settings() -> None:
    steps, method, rate, layers = FORM.fields
    assert (steps.kind, steps.minimum, steps.maximum, steps.optional) == ("integer", 1, 99, False)
    assert (method.kind, method.choices, method.default) == ("choice", ("mean", "min"), "mean")
    assert (rate.kind, rate.minimum, rate.maximum) == ("number", 0, 1)
    assert (rate.hint, rate.label, rate.id) == ("how fast; above 0; default 0.5", "rate", "group-rate")
    assert (layers.kind, layers.optional, layers.hint) == ("integer", True, "may be left empty")


def test_inputs_go_over_the_base_and_empty_ones_are_defaults() -> None:
    base = {"steps": 3, "other": 1, "group": {"rate": 0.1, "layers": 4, "more": 2}}
    assert FORM.write(base) == {"steps": "3", "method": "mean", "group.rate": "0.1", "group.layers": "4"}
    read = FORM.read({"steps": " 7 ", "method": "min", "group.rate": "", "group.layers": ""}, base)
    assert read == {"steps": 7, "method": "min", "other": 1, "group": {"layers": None, "more": 2}}
    assert base["group"]["layers"] == 4, "the base stays as it was"
    assert FORM.read({"steps": "many"}, {})["steps"] == "many", "for the message's own check to refuse"


def test_errors_stand_beside_their_field_or_above_all() -> None:
    try:
        Job.model_validate({"steps": 0, "group": {"rate": "x"}, "foreign": 1})
    except ValidationError as error:
        beside, above = sort_errors(error, {field.name for field in FORM.fields})
    assert set(beside) == {"steps", "group.rate"}
    assert "(got 0)" in beside["steps"]
    assert above == ["foreign: unknown field; remove it or correct its name"]
