"""`/submit`: a PPO job from a preset, by a form of its main settings."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import TypeAdapter, ValidationError

from rlhf.contracts.errors import Conflict, InvalidInput, TooLarge
from rlhf.contracts.jobs import PpoJobConfig, Priority
from rlhf.presets import PRESETS, preset_file
from services.console.backends import AtBackends, Backends
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.schemaform import SchemaForm, sort_errors

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
_PRIORITY: TypeAdapter[int] = TypeAdapter(Priority)


@router.get("/submit")
def show_form(request: Request, backends: AtBackends, preset: Annotated[str, Query()] = PRESETS[0]) -> Response:
    """The form, filled with a preset's settings."""
    values = FORM.write(_read_preset(preset)) | {"priority": "0", "reward_model": "", "prompts": ""}
    return _page(request, backends, preset, values)


@router.post("/submit")
def submit_job(request: Request, form: PostedForm, backends: AtBackends) -> Response:
    """Queues the job; what is wrong with it stands beside its field."""
    preset, key = form.get("preset", PRESETS[0]), form.get("key", "")
    body = FORM.read(form, _read_preset(preset))
    prompts = [line.strip() for line in form.get("prompts", "").splitlines() if line.strip()]
    body |= {"kind": "ppo", "prompts": prompts, "reward_model": form.get("reward_model", "").strip()}
    names = {field.name for field in FORM.fields} | set(OTHERS)
    try:
        config = PpoJobConfig.model_validate(body)
    except ValidationError as error:
        beside, above = sort_errors(error, names)
        return _page(request, backends, preset, form, key, beside, above)
    try:
        priority = _PRIORITY.validate_python(form.get("priority", "0"))
    except ValidationError as error:
        message = f"{error.errors()[0]['msg']} (got {form.get('priority')!r})"
        return _page(request, backends, preset, form, key, {"priority": message}, [])
    try:
        # The key was drawn with the form: a double click, or the form sent again, makes one job.
        job = backends.trainer.submit(config, key=key or None, priority=priority)
    except (InvalidInput, TooLarge) as error:
        beside = {name: error.message for name in names if error.message.startswith(f"{name} ")}
        return _page(request, backends, preset, form, key, beside, [] if beside else [error.message])
    except Conflict as error:
        message = f"This form made a job already, with other settings ({error.message}). Send it again for another job."
        return _page(request, backends, preset, form, "", {}, [message], status=409)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


def _page(
    request: Request,
    backends: Backends,
    preset: str,
    values: dict[str, str],
    key: str = "",
    beside: dict[str, str] | None = None,
    above: list[str] | None = None,
    status: Literal[409] | None = None,
) -> Response:
    wrong = bool(beside or above)
    return page(
        request,
        "submit.html.j2",
        status or (422 if wrong else 200),
        presets=PRESETS,
        preset=preset,
        groups=FORM.groups,
        values=dict.fromkeys(OTHERS, "") | {field.name: "" for field in FORM.fields} | values,
        key=key or secrets.token_hex(16),
        errors=beside or {},
        above=above or [],
        reward_models=backends.reward_models(),
    )


def _read_preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise InvalidInput(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    found: dict[str, Any] = json.loads(preset_file(name).read_text())
    return found
