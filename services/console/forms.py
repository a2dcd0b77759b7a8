"""Forms that a browser posts: read, and refused unless they carry their session's CSRF token."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from rlhf.contracts.errors import InvalidInput, ServiceError
from services.console.sessions import Session, Sessions

CSRF_FIELD = "csrf"
TYPE = "application/x-www-form-urlencoded"
MOST_FIELDS = 200


class Forbidden(ServiceError):
    """The form is not one of ours or of an earlier login, or the page is not for this person (403)."""

    status = 403
    error_type = "unauthorized"


async def read_form(request: Request) -> dict[str, str]:
    """A posted form's fields; of a field that occurs twice, the last.

    Raises:
        InvalidInput: it is no form, or none of ours.
        Forbidden: it lacks its session's CSRF token.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != TYPE:
        raise InvalidInput(f"the form came as {given or 'nothing'}; send it as {TYPE}")
    try:
        text = (await request.body()).decode()
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"))
    except ValueError as error:
        raise InvalidInput(f"the form cannot be read ({error}); send at most {MOST_FIELDS} fields, in UTF-8") from error
    sessions: Sessions = request.app.state.sessions
    session: Session | None = request.state.session
    if session is None or not sessions.holds(session, fields.pop(CSRF_FIELD, "")):
        raise Forbidden("the form is of an earlier login or of another page; go back and load its page again")
    return fields


PostedForm = Annotated[dict[str, str], Depends(read_form)]
