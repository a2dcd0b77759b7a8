"""`/evaluate`: a model beside another by a form: answers to prompts, and the questions of XSTest and BBQ."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from rlhf.contracts.evaluation import EvaluationJobConfig
from rlhf.contracts.gates import read_gates
from rlhf.contracts.jobs import JobStatus
from rlhf.data.benchmarks import read_bbq, read_xstest
from services.console.backends import AtBackends, Backends
from services.console.forms import PostedUpload, Upload
from services.console.pages import page
from services.console.schemaform import SchemaForm
from services.console.submitting import Refused, submit
from services.console.uploads import read_files

router = APIRouter()
FORM = SchemaForm(
    EvaluationJobConfig,
    {
        "Responses": (
            "responses.sampling.max_new_tokens",
            "responses.sampling.temperature",
            "responses.sampling.n",
        ),
        "Reward": ("aggregation.method", "aggregation.lambda"),
        "Run": ("seed",),
    },
)
OTHERS = (
    "adapter",
    "baseline",
    "reward_model",
    "responses.prompts",
    "red_team.prompts",
    "xstest",
    "bbq",
    "limit",
    "gates",
    "promote",
    "priority",
)
"""Inputs that are no plain settings."""
NAMES = {*OTHERS, *(field.name for field in FORM.fields)}


@router.get("/evaluate")
def show_evaluation(request: Request, backends: AtBackends, adapter: Annotated[str, Query()] = "") -> Response:
    """The form, for an adapter where a link names one."""
    return _page(request, backends, FORM.write({}) | {"priority": "0", "adapter": adapter}, Refused(status=200))


@router.post("/evaluate")
def submit_evaluation(request: Request, upload: PostedUpload, backends: AtBackends) -> Response:
    """Queues the evaluation; what is wrong with it stands beside its field."""
    form = upload.fields
    try:
        body = _read_body(form) | _read_benchmarks(upload)
    except WrongInput as error:
        made: JobStatus | Refused = Refused({error.name: str(error)}, key=form.get("key", ""))
    else:
        made = submit(backends, EvaluationJobConfig, body, form, NAMES)
    if isinstance(made, Refused):
        if upload.files:
            made.above.append("Choose the files again: a browser does not keep them.")
        return _page(request, backends, form, made)
    return RedirectResponse(f"/jobs/{made.id}", status_code=303)


class WrongInput(ValueError):
    """What was entered cannot be read. Attributes: name, of its input."""

    def __init__(self, name: str, message: str) -> None:
        """Args: name, of its input; message, of what is wrong."""
        super().__init__(message)
        self.name = name


def _read_body(form: dict[str, str]) -> dict[str, Any]:
    """Raises WrongInput for what is no gate."""
    body = FORM.read(form, {"kind": "evaluation", "promote": "promote" in form})
    body |= {name: form.get(name, "").strip() or None for name in ("baseline", "reward_model")}
    body["adapter"] = form.get("adapter", "").strip()
    for section in ("responses", "red_team"):
        lines = _lines(form.get(f"{section}.prompts", ""))
        if lines:
            body.setdefault(section, {})["prompts"] = [{"prompt": line} for line in lines]
        else:
            # Without prompts it is not measured.
            body.pop(section, None)
    try:
        body["gates"] = read_gates(_lines(form.get("gates", "")))
    except ValueError as error:
        raise WrongInput("gates", str(error)) from error
    return body


def _read_benchmarks(upload: Upload) -> dict[str, Any]:
    """Sections of the benchmarks whose files came. Raises WrongInput for a file or a limit that cannot be read."""
    text = upload.fields.get("limit", "").strip()
    if text and not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise WrongInput("limit", f"got {text!r}; a whole number of at least 1, or nothing for all")
    limit = int(text) if text else None
    readers: dict[str, tuple[str, Callable[[str], Sequence[BaseModel]]]] = {
        "xstest": ("prompts", lambda path: read_xstest(path, limit=limit)),
        "bbq": ("questions", lambda path: read_bbq([path], limit=limit)),
    }
    found: dict[str, Any] = {}
    for name, (rows, read) in readers.items():
        if name in upload.files:
            try:
                found[name] = {rows: read_files(upload.files[name], read)}
            except ValueError as error:
                raise WrongInput(name, str(error)) from error
    return found


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _page(request: Request, backends: Backends, values: dict[str, str], refused: Refused) -> Response:
    return page(
        request,
        "evaluate.html.j2",
        refused.status,
        groups=FORM.groups,
        values=dict.fromkeys(NAMES, "") | values,
        promote="promote" in values,
        key=refused.key or secrets.token_hex(16),
        errors=refused.beside,
        above=refused.above,
        adapters=backends.adapters(),
        reward_models=backends.reward_models(),
    )
