"""`/submit`: a PPO job from a preset, by a form of its main settings."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.jobs import PpoJobConfig
from rlhf.presets import PRESETS, preset_file
from services.console.backends import AtBackends, Backends
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.schemaform import SchemaForm
from services.console.submitting import Refused, submit

router = APIRouter()
FORM = SchemaForm(
    PpoJobConfig,
    {
        "Run": ("steps", "seed"),
        "Reward": ("aggregation.method", "aggregation.lambda"),
        "Responses": (
            "rollout.prompts_per_step",
            "rollout.samples_per_prompt",
            "rollout.max_new_tokens",
            "rollout.temperature",
            "rollout.missing_eos_penalty",
            "rollout.repeated_ngram_penalty",
        ),
        "KL penalty": ("kl.schedule", "kl.beta", "kl.target", "kl.horizon"),
        "Update": ("update.learning_rate", "update.epochs", "update.minibatches"),
        "Adapter": ("lora.r", "lora.alpha", "lora.top_layers"),
    },
)
OTHERS = ("reward_model", "prompts", "priority")
"""Inputs that are no plain settings."""


@router.get("/submit")
def show_form(request: Request, backends: AtBackends, preset: Annotated[str, Query()] = PRESETS[0]) -> Response:
    """The form, filled with a preset's settings."""
    values = FORM.write(_read_preset(preset)) | {"priority": "0", "reward_model": "", "prompts": ""}
    return _page(request, backends, preset, values, Refused(status=200))


@router.post("/submit")
def submit_job(request: Request, form: PostedForm, backends: AtBackends) -> Response:
    """Queues the job; what is wrong with it stands beside its field."""
    preset = form.get("preset", PRESETS[0])
    body = FORM.read(form, _read_preset(preset))
    prompts = [line.strip() for line in form.get("prompts", "").splitlines() if line.strip()]
    body |= {"kind": "ppo", "prompts": prompts, "reward_model": form.get("reward_model", "").strip()}
    names = {field.name for field in FORM.fields} | set(OTHERS)
    made = submit(backends, PpoJobConfig, body, form, names)
    if isinstance(made, Refused):
        return _page(request, backends, preset, form, made)
    return RedirectResponse(f"/jobs/{made.id}", status_code=303)


def _page(
    request: Request,
    backends: Backends,
    preset: str,
    values: dict[str, str],
    refused: Refused,
) -> Response:
    return page(
        request,
        "submit.html.j2",
        refused.status,
        presets=PRESETS,
        preset=preset,
        groups=FORM.groups,
        values=dict.fromkeys(OTHERS, "") | {field.name: "" for field in FORM.fields} | values,
        key=refused.key or secrets.token_hex(16),
        errors=refused.beside,
        above=refused.above,
        reward_models=backends.reward_models(),
    )


def _read_preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise InvalidInput(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    found: dict[str, Any] = json.loads(preset_file(name).read_text())
    return found
