"""`/people`: who may log in, and with which role."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from rlhf.contracts.errors import Conflict, InvalidInput
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.store import people
from services.console.store.database import Store
from services.console.store.models import Person, Role
from services.console.visitors import AtStore, Id

router = APIRouter()


@router.get("/people")
def list_people(request: Request, store: AtStore) -> Response:
    """Everyone, and the form that adds somebody."""
    return _page(request, store)


@router.post("/people")
def add_person(request: Request, form: PostedForm, store: AtStore) -> Response:
    """Adds somebody and shows the key. Sent again, it is refused, since the name is taken."""
    try:
        with store.writing() as session:
            person, key = people.add(session, form.get("name", "").strip(), form.get("role", Role.ANNOTATOR))
    except (Conflict, InvalidInput) as error:
        return _page(request, store, status=error.status, error=error.message, name=form.get("name", ""))
    return _page(request, store, person=person, key=key)


@router.post("/people/{person}/key")
def renew_key(request: Request, person: Id, form: PostedForm, store: AtStore) -> Response:
    """Draws another key and shows it; logins with the old one end."""
    with store.writing() as session:
        found, key = people.renew_key(session, person)
    return _page(request, store, person=found, key=key)


@router.post("/people/{person}/remove")
def remove_person(person: Id, form: PostedForm, store: AtStore) -> Response:
    """Ends the key and the logins; judgements stay."""
    with store.writing() as session:
        people.remove(session, person)
    return RedirectResponse("/people", status_code=303)


def _page(
    request: Request,
    store: Store,
    *,
    status: int = 200,
    person: Person | None = None,
    key: str = "",
    error: str = "",
    name: str = "",
) -> Response:
    with store.reading() as session:
        everyone = people.everyone(session)
    shown = {"person": person, "key": key, "error": error, "name": name}
    return page(
        request, "people.html.j2", status, everyone=everyone, operator=people.OPERATOR, roles=list(Role), **shown
    )
