"""`/studies`: sets of pairs to judge, made from a file or from two models, and what the judgements say."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from rlhf.contracts.errors import InvalidInput
from services.console.figures import compute, join
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.store import datasets, queue, studies
from services.console.store.database import Store
from services.console.visitors import AtStore, Id

router = APIRouter(prefix="/studies")
MOST_COMMENTS = 100


@router.get("")
def list_studies(request: Request, store: AtStore) -> Response:
    """All of them, newest first."""
    with store.reading() as session:
        shown = {
            "studies": studies.newest(session),
            "pairs": studies.count_pairs(session),
            "judgements": studies.count_judgements(session),
            "coverage": queue.coverage(session),
        }
    return page(request, "studies.html.j2", **shown)


@router.get("/{study}")
def show_study(request: Request, study: Id, store: AtStore) -> Response:
    """What the judgements say, and the datasets made of them."""
    with store.reading() as session:
        found = studies.get(session, study)
        pairs = studies.pairs_of(session, study)
        judged = studies.judgements_of(session, study)
        versions = datasets.of_study(session, study)
        coverage = queue.coverage(session, study).get(study)
    comments = [(name, each) for each, name in reversed(judged) if each.comment]
    shown = {
        "study": found,
        "pairs": len(pairs),
        "coverage": coverage,
        "golden": sum(pair.gold is not None for pair in pairs),
        # Drawing samples for the intervals takes a while: the database is not kept waiting meanwhile.
        "figures": compute(join(pairs, judged)),
        "first": sum(each.verdict == each.first for each, _ in judged),
        "preferred": sum(each.verdict in ("a", "b") for each, _ in judged),
        "comments": comments[:MOST_COMMENTS],
        "positions": {pair.id: pair.position + 1 for pair in pairs},
        "versions": versions,
    }
    return page(request, "study.html.j2", **shown)


@router.post("/{study}/close")
def close_study(study: Id, form: PostedForm, store: AtStore) -> Response:
    """Ends the judging; what was judged stays."""
    with store.writing() as session:
        studies.set_open(session, study, is_open=False)
    return RedirectResponse(f"/studies/{study}", status_code=303)


@router.post("/{study}/open")
def open_study(study: Id, form: PostedForm, store: AtStore) -> Response:
    """Lets people judge it again."""
    with store.writing() as session:
        studies.set_open(session, study, is_open=True)
    return RedirectResponse(f"/studies/{study}", status_code=303)


@router.get("/{study}/delete")
def ask_to_delete(request: Request, study: Id, store: AtStore) -> Response:
    """What goes with a study, and the form that deletes it."""
    return _deletion(request, study, store)


@router.post("/{study}/delete")
def delete_study(request: Request, study: Id, form: PostedForm, store: AtStore) -> Response:
    """Deletes a study whose name was typed. Sent again, it changes nothing."""
    typed = form.get("name", "")
    try:
        with store.writing() as session:
            studies.remove(session, study, typed)
    except InvalidInput as error:
        return _deletion(request, study, store, status=error.status, error=error.message, typed=typed)
    return RedirectResponse("/studies", status_code=303)


def _deletion(
    request: Request, study: int, store: Store, *, status: int = 200, error: str = "", typed: str = ""
) -> Response:
    with store.reading() as session:
        shown = {
            "study": studies.get(session, study),
            "pairs": studies.count_pairs(session).get(study, 0),
            "judgements": studies.count_judgements(session).get(study, 0),
            "versions": datasets.of_study(session, study),
        }
    return page(request, "delete_study.html.j2", status, error=error, typed=typed, **shown)
