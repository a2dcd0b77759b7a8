"""Forms that a browser posts: read, and refused unless they carry their session's CSRF token."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from rlhf.contracts.errors import InvalidInput, ServiceError
from services.console.sessions import Session, Sessions

CSRF_FIELD = "csrf"
TYPE = "application/x-www-form-urlencoded"
UPLOAD_TYPE = "multipart/form-data"
MOST_FIELDS = 200


class Forbidden(ServiceError):
    """The form is not one of ours or of an earlier login, or the page is not for this person (403)."""

    status = 403
    error_type = "unauthorized"


@dataclass(frozen=True)
class File:
    """One that was uploaded. Attributes: name, as its owner's machine has it; content."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Upload:
    """A form with files. Attributes: fields, as read_form's; files, by the name of their field, those chosen."""

    fields: dict[str, str]
    files: dict[str, list[File]]


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
    return check_form(request, fields)


def check_form(request: Request, fields: dict[str, str]) -> dict[str, str]:
    """A form's fields without its token.

    Raises:
        InvalidInput: a field holds what no database takes.
        Forbidden: it lacks its session's CSRF token.
    """
    sessions: Sessions = request.app.state.sessions
    session: Session | None = request.state.session
    if session is None or not sessions.holds(session, fields.pop(CSRF_FIELD, "")):
        raise Forbidden("the form is of an earlier login or of another page; go back and load its page again")
    if any("\0" in value for value in fields.values()):
        raise InvalidInput("a field holds the character U+0000; remove it")
    return fields


async def read_upload(request: Request) -> Upload:
    """A posted form that may carry files.

    Raises:
        InvalidInput, Forbidden: as read_form.
    """
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != UPLOAD_TYPE:
        return Upload(await read_form(request), {})
    # A form's parts are an e-mail's (RFC 7578), which the standard library reads.
    head = f"Content-Type: {given}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1")
    parsed = message_from_bytes(head + await request.body(), policy=HTTP)
    parts = list(parsed.iter_parts()) if parsed.is_multipart() else []
    if len(parts) > MOST_FIELDS or any(part.is_multipart() for part in parts):
        raise InvalidInput(f"the form cannot be read; send at most {MOST_FIELDS} fields, none with parts of its own")
    fields: dict[str, str] = {}
    files: dict[str, list[File]] = {}
    for part in parts:
        name = part.get_param("name", "", "content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            continue
        filename = part.get_filename()
        if filename is None:
            fields[name] = content.decode("utf-8", "replace")
        elif filename or content:
            # An input in which nothing was chosen comes as a file with neither.
            files.setdefault(name, []).append(File(filename, content))
    return Upload(check_form(request, fields), files)


PostedUpload = Annotated[Upload, Depends(read_upload)]
PostedForm = Annotated[dict[str, str], Depends(read_form)]
