"""`/playground`: one prompt, two models side by side."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from rlhf.contracts.base import ADAPTER_REF_PATTERN, ARTIFACT_REF_PATTERN
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.openai import ChatRequest
from rlhf.contracts.policy import READERS_NGRAM
from services.console import livestream
from services.console.answers import Answer, Question, ask, score
from services.console.backends import AtBackends, Backends
from services.console.forms import PostedForm
from services.console.livestream import EventStream
from services.console.pages import page
from services.console.references import BASE, wrong_reference
from services.console.schemaform import SchemaForm, sort_errors

router = APIRouter()
FORM = SchemaForm(
    ChatRequest,
    {"Sampling": ("max_tokens", "temperature", "top_p", "repetition_penalty", "no_repeat_ngram_size", "seed")},
)
START = {"max_tokens": 64, "temperature": 0.7, "no_repeat_ngram_size": READERS_NGRAM}
"""What the form begins with, where it is not the server's default."""
SIDES = ("left", "right")
REFERENCES = (*SIDES, "reward_model")


@dataclass(frozen=True)
class Problems:
    """Why a form asks nothing: messages by the field they belong to, and those of no field."""

    beside: dict[str, str]
    above: list[str]


@router.get("/playground")
def show_playground(request: Request, backends: AtBackends) -> Response:
    """The empty form."""
    return _page(request, backends, FORM.write(START))


@router.post("/playground")
def compare(request: Request, form: PostedForm, backends: AtBackends) -> Response:
    """Both answers whole, beside the form that asked for them."""
    question = _read(form)
    if isinstance(question, Problems):
        return _page(request, backends, form, problems=question)
    with ThreadPoolExecutor(len(SIDES)) as pool:
        answers = list(pool.map(lambda model: ask(backends, question, model), question.models))
    score(backends, question, answers)
    return _page(request, backends, form, answers=answers, seed=question.request.seed)


@router.post("/playground/stream")
async def stream(form: PostedForm, backends: AtBackends) -> Response:
    """Both answers while they are written, as events. Problems of a form are shown by the route above.

    Raises:
        InvalidInput: the form has some.
    """
    question = _read(form)
    if isinstance(question, Problems):
        raise InvalidInput("; ".join([*question.above, *question.beside.values()]))
    return EventStream(livestream.compare(backends, question))


def _read(form: dict[str, str]) -> Question | Problems:
    prompt = form.get("prompt", "").strip()
    beside = {name: wrong for name in REFERENCES if (wrong := _ill_reference(name, form.get(name, "").strip()))}
    if not prompt:
        beside["prompt"] = "write a prompt"
    body = FORM.read(form, {"messages": [{"role": "user", "content": prompt}], "logprobs": True})
    # Both sides draw with the same seed, so that what differs is the model.
    body["seed"] = secrets.randbelow(2**31) if body["seed"] is None else body["seed"]
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        settings, above = sort_errors(error, {each.name for each in FORM.fields})
        return Problems(beside | settings, above)
    if beside:
        return Problems(beside, [])
    left, right = (form.get(side, "").strip() or BASE for side in SIDES)
    return Question(prompt, request, (left, right), form.get("reward_model", "").strip())


def _ill_reference(name: str, text: str) -> str | None:
    return wrong_reference(text, ADAPTER_REF_PATTERN if name in SIDES else ARTIFACT_REF_PATTERN)


def _page(
    request: Request,
    backends: Backends,
    values: dict[str, str],
    *,
    answers: list[Answer] | None = None,
    problems: Problems | None = None,
    seed: int | None = None,
) -> Response:
    blank = dict.fromkeys(("prompt", *REFERENCES, *(each.name for each in FORM.fields)), "")
    shown: dict[str, Any] = {
        "groups": FORM.groups,
        "values": blank | values,
        "errors": problems.beside if problems else {},
        "above": problems.above if problems else [],
        "answers": answers or [],
        "seed": seed,
        "adapters": backends.adapters(),
        "reward_models": backends.reward_models(),
    }
    return page(request, "playground.html.j2", 422 if problems else 200, **shown)
