"""`/login` and `/logout`."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from services.console.forms import PostedForm
from services.console.logins import Logins
from services.console.pages import page
from services.console.sessions import COOKIE, Session, Sessions

log = logging.getLogger(__name__)
router = APIRouter()


@router.get("/login")
def show_login(request: Request, to: Annotated[str, Query(alias="next")] = "/") -> Response:
    """The form; a visitor who is signed in goes on."""
    sessions: Sessions = request.app.state.sessions
    session: Session | None = request.state.session
    if session is not None and session.signed_in:
        return RedirectResponse(_local(to), status_code=303)
    request.state.session = session or sessions.anonymous()
    response = page(request, "login.html.j2", to=_local(to), error=None)
    _set_cookie(request, response, request.state.session)
    return response


@router.post("/login")
def log_in(request: Request, form: PostedForm) -> Response:
    """A right key gets a new session, whatever session came with it."""
    sessions: Sessions = request.app.state.sessions
    to = _local(form.get("next", "/"))
    logins: Logins = request.app.state.logins
    address = "unknown" if request.client is None else request.client.host
    person = logins.identify(form.get("key", "").strip(), address)
    if person is None:
        log.warning("login refused: a wrong key", extra={"address": address})
        error = "This is not the key. Yours was shown once, when an admin added you; the operator's is RLHF_API_KEY."
        return page(request, "login.html.j2", 401, to=to, error=error)
    session = sessions.begin(person.id, person.generation, person.role)
    sessions.end(request.state.session)
    response = RedirectResponse(to, status_code=303)
    _set_cookie(request, response, session)
    return response


@router.post("/logout")
def log_out(request: Request, form: PostedForm) -> Response:
    """Ends the session, here and in the browser."""
    sessions: Sessions = request.app.state.sessions
    sessions.end(request.state.session)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_secure(request))
    return response


def _set_cookie(request: Request, response: Response, session: Session) -> None:
    # No max-age: the browser forgets it when it is closed; the signature's own expiry ends it before.
    value = request.app.state.sessions.write(session)
    response.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=_is_secure(request))


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _local(path: str) -> str:
    """A path of ours; anything that could lead elsewhere becomes the start page."""
    return path if path.startswith("/") and not path.startswith("//") and "\\" not in path else "/"
