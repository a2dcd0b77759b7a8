"""The console as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from rlhf.evaluation import charts
from rlhf.serving.service import create_service
from services.console.backends import Backends, connect
from services.console.doors import STATIC, Doors
from services.console.eventlog import EventLogs
from services.console.guesses import Guesses
from services.console.logins import Logins
from services.console.pages import handle_errors
from services.console.routes import (
    annotate,
    datasets,
    evaluation,
    jobs,
    login,
    new_study,
    people,
    playground,
    studies,
    submission,
)
from services.console.sessions import Sessions
from services.console.settings import ConsoleSettings
from services.console.store.database import Store, parse_url


def create_app(settings: ConsoleSettings, backends: Backends | None = None) -> FastAPI:
    """Builds the service, and brings its database up to date.

    Args:
        settings: of the console.
        backends: clients in place of those that the settings name.

    Raises:
        DatabaseError: the database cannot be used.
    """
    clients = backends or connect(settings)
    store = Store(parse_url(settings.console_database.get_secret_value()))
    guesses = Guesses(settings.login_guesses_per_address, settings.login_guesses, settings.login_window_s)
    logins = Logins(store, settings.login_key, guesses)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        clients.close()
        store.close()

    async def ready(app: FastAPI) -> None:
        # A page that says which service is away is of more use than no page.
        return None

    pages = (login, jobs, submission, evaluation, playground, people, annotate, new_study, studies, datasets)
    routers = [each.router for each in pages]
    app = create_service("console", settings, routers, lifespan=lifespan, ready=ready, for_browsers=True)
    handle_errors(app)
    app.state.sessions = Sessions(settings.login_key, settings.session_hours)
    app.state.store, app.state.logins = store, logins
    app.state.backends, app.state.logs = clients, EventLogs(clients.trainer)

    @app.get(f"{STATIC}report.css", response_class=FileResponse)
    def report_style() -> FileResponse:
        """The report's own style: its charts are drawn here too."""
        return FileResponse(Path(charts.__file__).with_name("report.css"))

    app.mount(STATIC, StaticFiles(directory=Path(__file__).with_name("static")), name="static")
    app.add_middleware(Doors, sessions=app.state.sessions, holds=logins.holds)
    return app
