"""`/playground`: one prompt, two models side by side."""

from __future__ import annotations

import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from rlhf.contracts.base import ADAPTER_REF_PATTERN, ARTIFACT_REF_PATTERN
from rlhf.contracts.errors import ServiceError
from rlhf.contracts.openai import ChatRequest
from rlhf.contracts.reward import RewardRequest, RewardSample, SampleFailure, SampleScore
from services.console.backends import AtBackends, Backends
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.responses import Piece, mark_repeats, mark_tokens
from services.console.schemaform import SchemaForm, sort_errors

router = APIRouter()
FORM = SchemaForm(
    ChatRequest,
    {"Sampling": ("max_tokens", "temperature", "top_p", "repetition_penalty", "no_repeat_ngram_size", "seed")},
)
START = {"max_tokens": 64, "temperature": 0.7}
"""What the form begins with, where it is not the server's default."""
SIDES = ("left", "right")
REFERENCES = (*SIDES, "reward_model")
BASE = "base"
"""Any name that is no `job@version` is the base model."""


@dataclass
class Answer:
    """What one model said, or why it said nothing."""

    model: str
    text: str = ""
    pieces: list[Piece] = field(default_factory=list)
    finish: str = ""
    tokens: int = 0
    error: str | None = None
    score: SampleScore | None = None
    score_error: str | None = None


@router.get("/playground")
def show_playground(request: Request, backends: AtBackends) -> Response:
    """The empty form."""
    return _page(request, backends, FORM.write(START))


@router.post("/playground")
def compare(request: Request, form: PostedForm, backends: AtBackends) -> Response:
    """Both answers, beside the form that asked for them."""
    prompt = form.get("prompt", "").strip()
    beside = {name: wrong for name in REFERENCES if (wrong := _ill_reference(name, form.get(name, "").strip()))}
    if not prompt:
        beside["prompt"] = "write a prompt"
    body = FORM.read(form, {"messages": [{"role": "user", "content": prompt}], "logprobs": True})
    # Both sides draw with the same seed, so that what differs is the model.
    body["seed"] = secrets.randbelow(2**31) if body["seed"] is None else body["seed"]
    try:
        asked = ChatRequest.model_validate(body)
    except ValidationError as error:
        settings, above = sort_errors(error, {each.name for each in FORM.fields})
        return _page(request, backends, form, errors=beside | settings, above=above)
    if beside:
        return _page(request, backends, form, errors=beside)
    models = [form.get(side, "").strip() or BASE for side in SIDES]
    with ThreadPoolExecutor(len(SIDES)) as pool:
        answers = list(pool.map(lambda model: _ask(backends, asked, model), models))
    if reward_model := form.get("reward_model", "").strip():
        _score(backends, prompt, reward_model, answers)
    return _page(request, backends, form, answers=answers, seed=asked.seed)


def _ill_reference(name: str, text: str) -> str | None:
    if not text or re.fullmatch(ADAPTER_REF_PATTERN if name in SIDES else ARTIFACT_REF_PATTERN, text):
        return None
    return f"{text!r} is no reference; write job@version, such as ppo-1a2b3c4d@20, or leave it empty"


def _ask(backends: Backends, asked: ChatRequest, model: str) -> Answer:
    answer = Answer(model)
    try:
        choice = backends.policy.chat(asked.model_copy(update={"model": model})).choices[0]
    except ServiceError as error:
        # One side's failure leaves the other's answer.
        answer.error = error.message
        return answer
    answer.text, answer.finish = choice.message.content, choice.finish_reason
    tokens = [] if choice.logprobs is None else choice.logprobs.content
    answer.tokens = len(tokens)
    answer.pieces = mark_tokens(tokens) if tokens else mark_repeats(answer.text)
    return answer


def _score(backends: Backends, prompt: str, model: str, answers: list[Answer]) -> None:
    said = [answer for answer in answers if answer.error is None]
    if not said:
        return
    samples = [RewardSample(prompt=prompt, response=answer.text) for answer in said]
    try:
        results = backends.reward.score(RewardRequest(samples=samples, model=model)).results
    except ServiceError as error:
        for answer in said:
            answer.score_error = error.message
        return
    for answer, result in zip(said, results, strict=True):
        if isinstance(result, SampleFailure):
            answer.score_error = result.error
        else:
            answer.score = result


def _page(
    request: Request,
    backends: Backends,
    values: dict[str, str],
    *,
    answers: list[Answer] | None = None,
    errors: dict[str, str] | None = None,
    above: list[str] | None = None,
    seed: int | None = None,
) -> Response:
    blank = dict.fromkeys(("prompt", *REFERENCES, *(each.name for each in FORM.fields)), "")
    shown: dict[str, Any] = {
        "groups": FORM.groups,
        "values": blank | values,
        "errors": errors or {},
        "above": above or [],
        "answers": answers or [],
        "seed": seed,
        "adapters": backends.adapters(),
        "reward_models": backends.reward_models(),
    }
    return page(request, "playground.html.j2", 422 if errors or above else 200, **shown)
