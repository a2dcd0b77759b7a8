"""`/evaluate`: a model beside another by answers to prompts, by a form. Files of benchmarks go by `rlhf evaluate`."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from rlhf.contracts.evaluation import EvaluationJobConfig
from rlhf.contracts.gates import read_gates
from services.console.backends import AtBackends, Backends
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.schemaform import SchemaForm
from services.console.submitting import Refused, submit

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
def submit_evaluation(request: Request, form: PostedForm, backends: AtBackends) -> Response:
    """Queues the evaluation; what is wrong with it stands beside its field."""
    try:
        body = _read_body(form)
    except ValueError as error:
        return _page(request, backends, form, Refused({"gates": str(error)}, key=form.get("key", "")))
    made = submit(backends, EvaluationJobConfig, body, form, NAMES)
    if isinstance(made, Refused):
        return _page(request, backends, form, made)
    return RedirectResponse(f"/jobs/{made.id}", status_code=303)


def _read_body(form: dict[str, str]) -> dict[str, Any]:
    """Raises ValueError for what is no gate."""
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
    body["gates"] = read_gates(_lines(form.get("gates", "")))
    return body


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
