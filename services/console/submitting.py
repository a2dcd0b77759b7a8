"""A form that becomes a job: checked, sent once, and what is wrong sorted to its inputs. No pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlhf.contracts.errors import Conflict, InvalidInput, TooLarge
from rlhf.contracts.jobs import AnyJobConfig, JobStatus, Priority
from services.console.backends import Backends
from services.console.schemaform import sort_errors

_PRIORITY: TypeAdapter[int] = TypeAdapter(Priority)


@dataclass(frozen=True)
class Refused:
    """Why no job was made.

    Attributes:
        beside: messages by the input they belong to.
        above: those of no input.
        status: of the answer.
        key: under which the form may be sent again; empty: a new one.
    """

    beside: dict[str, str] = field(default_factory=dict)
    above: list[str] = field(default_factory=list)
    status: int = 422
    key: str = ""


def submit(
    backends: Backends,
    model: type[AnyJobConfig],
    body: Mapping[str, Any],
    form: Mapping[str, str],
    names: Collection[str],
) -> JobStatus | Refused:
    """Queues a job.

    Args:
        backends: whose trainer takes it.
        model: of its config.
        body: of its config.
        form: with `key`, which was drawn with the form: a double click, or the form sent again, makes one job; and with
            `priority`.
        names: of the inputs on the page.
    """
    key = form.get("key", "")
    try:
        config = model.model_validate(body)
    except ValidationError as error:
        return Refused(*sort_errors(error, set(names)), key=key)
    try:
        priority = _PRIORITY.validate_python(form.get("priority", "0"))
    except ValidationError as error:
        return Refused({"priority": f"{error.errors()[0]['msg']} (got {form.get('priority')!r})"}, key=key)
    try:
        return backends.trainer.submit(config, key=key or None, priority=priority)
    except (InvalidInput, TooLarge) as error:
        beside = {name: error.message for name in names if error.message.startswith(f"{name} ")}
        return Refused(beside, [] if beside else [error.message], key=key)
    except Conflict as error:
        message = f"This form made a job already, with other settings ({error.message}). Send it again for another job."
        return Refused(above=[message], status=409)
