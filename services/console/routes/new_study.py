"""`/studies/new`: a study from a file of pairs, or from two models that answer the same prompts."""

from __future__ import annotations

import re
import secrets
from typing import Literal, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from rlhf.contracts.errors import InvalidInput, ServiceError, Unauthorized
from rlhf.contracts.policy import SamplingParams
from services.console.backends import AtBackends, Backends
from services.console.forms import PostedForm, PostedUpload
from services.console.pages import page
from services.console.pairs import ORDERINGS, ScoredPair, arrange, read_pairs
from services.console.references import BASE, wrong_reference
from services.console.sampled_pairs import MOST_PROMPTS, Answered, answer, score
from services.console.schemaform import SchemaForm, sort_errors
from services.console.store import studies
from services.console.store.database import Store
from services.console.store.models import Study
from services.console.visitors import AtStore

router = APIRouter(prefix="/studies")
FORM = SchemaForm(
    SamplingParams, {"Sampling": ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed")}
)
KEY = re.compile(r"[0-9a-f]{32}")
BLANK = dict.fromkeys(("name", "reward_model", "wanted", "prompts", "left", "right"), "") | {
    "ordering": ORDERINGS[0],
    "blind": "on",
}


class General(NamedTuple):
    """What both forms ask for. Attributes: as models.Study's, but for an empty reward_model."""

    name: str
    ordering: Literal["random", "disagreement"]
    reward_model: str
    wanted: int | None


@router.get("/new")
def show_forms(request: Request, backends: AtBackends) -> Response:
    """Both forms."""
    return _page(request, backends, BLANK)


@router.post("/upload")
def upload_study(request: Request, upload: PostedUpload, store: AtStore, backends: AtBackends) -> Response:
    """A study from a file. Sent again, the form means the same study."""
    form = upload.fields
    try:
        if (made := _made(store, form)) is not None:
            return made
        given = read_pairs(b"".join(file.content for file in upload.files.get("file", [])))
        pairs = [pair for pair in given if pair.responses[0] != pair.responses[1]]
        return _create(store, backends, form, "upload", Answered(pairs, len(given) - len(pairs)))
    except ServiceError as error:
        return _refused(request, backends, form, error)


@router.post("/generate")
def generate_study(request: Request, form: PostedForm, store: AtStore, backends: AtBackends) -> Response:
    """A study from two models' answers. Sent again, the form means the same study."""
    try:
        if (made := _made(store, form)) is not None:
            return made
        prompts = [line.strip() for line in form.get("prompts", "").splitlines() if line.strip()]
        if not 1 <= len(prompts) <= MOST_PROMPTS:
            raise InvalidInput(f"there are {len(prompts)} prompts; write 1 to {MOST_PROMPTS}, one a line")
        body = FORM.read(form, {})
        body["seed"] = secrets.randbelow(2**31) if body["seed"] is None else body["seed"]
        sampling = SamplingParams.model_validate(body)
        models = (_reference(form, "left") or BASE, _reference(form, "right") or BASE)
        _settings(form)
        return _create(store, backends, form, "models", answer(backends.policy, prompts, models, sampling))
    except ValidationError as error:
        beside, above = sort_errors(error, {each.name for each in FORM.fields})
        return _page(request, backends, BLANK | form, errors=beside, above=above, status=422)
    except ServiceError as error:
        return _refused(request, backends, form, error)


def _create(
    store: Store, backends: Backends, form: dict[str, str], source: Literal["upload", "models"], found: Answered
) -> Response:
    given = _settings(form)
    if not found.pairs:
        raise InvalidInput(f"in all {found.left_out} pairs both responses are the same text; there is nothing to judge")
    if given.wanted is not None and all(pair.gold is not None for pair in found.pairs):
        raise InvalidInput("all pairs check attention, of which no number is wanted; leave judgements a pair empty")
    scored = [ScoredPair(pair) for pair in found.pairs]
    if given.reward_model:
        scored = score(backends.reward, given.reward_model, found.pairs)
    study = Study(
        name=given.name,
        source=source,
        ordering=given.ordering,
        reward_model=given.reward_model or None,
        wanted=given.wanted,
        blind="blind" in form,
        form_key=form["key"],
        left_out=found.left_out,
    )
    try:
        with store.writing() as session:
            studies.create(session, study, arrange(scored, given.ordering, form["key"]))
    except IntegrityError:
        # The other request of a double click was faster.
        made = _made(store, form)
        if made is None:
            raise
        return made
    return RedirectResponse(f"/studies/{study.id}", status_code=303)


def _made(store: Store, form: dict[str, str]) -> Response | None:
    """Where the study is that this form has made already."""
    if not KEY.fullmatch(form.get("key", "")):
        raise InvalidInput("the form lacks its key; load its page again")
    with store.reading() as session:
        found = studies.find_by_form(session, form["key"])
    return None if found is None else RedirectResponse(f"/studies/{found.id}", status_code=303)


def _settings(form: dict[str, str]) -> General:
    """What both forms ask for, before anything is computed."""
    name, ordering, reward_model, wanted = (
        form.get("name", "").strip(),
        form.get("ordering", ""),
        _reference(form, "reward_model"),
        _wanted(form),
    )
    if not 1 <= len(name) <= studies.MOST_NAME:
        raise InvalidInput(f"the name has {len(name)} characters; give it 1 to {studies.MOST_NAME}")
    if ordering == "random":
        return General(name, "random", reward_model, wanted)
    if ordering != "disagreement":
        raise InvalidInput(f"ordering {ordering!r} is none; choose {' or '.join(ORDERINGS)}")
    if not reward_model:
        raise InvalidInput("where the ensemble disagrees is told by a reward model; name one, or order at random")
    return General(name, "disagreement", reward_model, wanted)


def _wanted(form: dict[str, str]) -> int | None:
    text = form.get("wanted", "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) or not 1 <= int(text) <= studies.MOST_WANTED:
        raise InvalidInput(f"judgements a pair is {text!r}; give 1 to {studies.MOST_WANTED}, or leave it empty")
    return int(text)


def _reference(form: dict[str, str], name: str) -> str:
    text = form.get(name, "").strip()
    if (wrong := wrong_reference(text)) is not None:
        raise InvalidInput(wrong)
    return text


def _refused(request: Request, backends: Backends, form: dict[str, str], error: ServiceError) -> Response:
    if isinstance(error, Unauthorized):
        raise error
    return _page(request, backends, BLANK | {"blind": ""} | form, above=[error.message], status=error.status)


def _page(
    request: Request,
    backends: Backends,
    values: dict[str, str],
    *,
    errors: dict[str, str] | None = None,
    above: list[str] | None = None,
    status: int = 200,
) -> Response:
    return page(
        request,
        "new_study.html.j2",
        status,
        values=FORM.write({"temperature": 0.7}) | values,
        errors=errors or {},
        above=above or [],
        groups=FORM.groups,
        key=secrets.token_hex(16),
        orderings=ORDERINGS,
        most_prompts=MOST_PROMPTS,
        most_wanted=studies.MOST_WANTED,
        adapters=backends.adapters(),
        reward_models=backends.reward_models(),
    )
