"""Pages: templates that escape everything they are given, and errors as pages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from rlhf.contracts.errors import InvalidInput, NotFound, ServiceError, Unauthorized
from rlhf.evaluation.formats import show_duration, show_moment
from rlhf.serving.logs import request_id
from rlhf.serving.service import OPEN_PATHS, answer_error, describe_validation
from services.console.sessions import Session
from services.console.store.models import Role

TITLES = {
    403: "Not allowed",
    404: "Not found",
    409: "Not possible now",
    410: "No longer here",
    413: "Too large",
    422: "Not understood",
    429: "Too many at once",
    503: "Out of reach",
}
NAVIGATION = {
    Role.ADMIN: (
        ("/", "Jobs"),
        ("/submit", "New job"),
        ("/evaluate", "Evaluate"),
        ("/playground", "Playground"),
        ("/annotate", "Annotate"),
        ("/studies", "Studies"),
        ("/datasets", "Datasets"),
        ("/people", "People"),
    ),
    Role.ANNOTATOR: (("/annotate", "Annotate"),),
}


def _figure(value: object) -> str:
    return f"{value:.4g}".replace("-", "−") if isinstance(value, int | float) else "–"


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"moment": show_moment, "duration": show_duration, "figure": _figure}


def page(request: Request, name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A page. Args: request, for its session; name, of the template; status, of the answer; values, it shows."""
    session: Session | None = request.state.session
    shared = {
        "role": None if session is None else session.role,
        "csrf": "" if session is None else request.app.state.sessions.csrf(session),
        "navigation": NAVIGATION,
        "path": request.url.path,
        "now": time.time(),
    }
    return HTMLResponse(_templates.get_template(name).render(shared | values), status_code=status)


def fragment(name: str, **values: Any) -> str:
    """A part of a page, for scripts to put in place. Args: name, of the template; values, it shows."""
    return _templates.get_template(name).render(values)


def handle_errors(app: FastAPI) -> None:
    """Errors become pages."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        return show_error(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return show_error(request, InvalidInput(describe_validation(list(error.errors()))))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return show_error(request, NotFound(f"there is no page {request.url.path}"))
        title = TITLES.get(error.status_code, "Error")
        message = f"{request.method} {request.url.path}: {error.detail}"
        return page(request, "error.html.j2", error.status_code, title=title, message=message, id=request_id.get())


def show_error(request: Request, error: ServiceError) -> Response:
    """An error as a page, in place of the JSON that programs get from the other services."""
    if request.url.path in OPEN_PATHS:
        return answer_error(error)
    status, message = error.status, error.message
    if isinstance(error, Unauthorized):
        # The visitor is signed in: it is the console's own key that a service refused.
        status = 503
        message = f"A service refused the console's key: {message}; set RLHF_SERVICES_API_KEY to its key"
    title = TITLES.get(status, "Error")
    answer = page(request, "error.html.j2", status, title=title, message=message, id=request_id.get())
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return answer
