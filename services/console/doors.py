"""What stands before every page: the login, and the headers that keep a browser from running what we did not write."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf.contracts.errors import ServiceError
from rlhf.serving.service import OPEN_PATHS
from services.console.forms import Forbidden
from services.console.pages import show_error
from services.console.sessions import COOKIE, Session, Sessions
from services.console.store.models import Role

STATIC = "/static/"
LOGIN = "/login"
LOGOUT = "/logout"
ANNOTATE = "/annotate"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Doors:
    """ASGI middleware: without a login there are the login form, static files and probes, and nothing else.

    Annotators have the pages under /annotate, and nothing else: what is added to the console is closed to them until
    somebody opens it here. `request.state.session` is the visitor's session, or None.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, holds: Callable[[Session], bool]) -> None:
        """Args: app, what to guard; sessions, their cookies; holds, whether a session's person may still enter."""
        self.app, self.sessions, self.holds = app, sessions, holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, path = Request(scope), scope["path"]
        is_open = path in OPEN_PATHS or path.startswith(STATIC)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Cache-Control"] = "no-cache" if path.startswith(STATIC) else "no-store"
            await send(message)

        request.state.session = None
        if is_open:
            await self.app(scope, receive, send_guarded)
            return
        try:
            session = request.state.session = await self._session(request)
            answer = self._turn_away(request, session)
        except ServiceError as error:
            answer = show_error(request, error)
        await (answer or self.app)(scope, receive, send_guarded)

    async def _session(self, request: Request) -> Session | None:
        session = self.sessions.read(request.cookies.get(COOKIE))
        if session is None or not session.signed_in:
            return session
        # Whoever was removed is out with the next request, not with the session's end.
        return session if await run_in_threadpool(self.holds, session) else None

    def _turn_away(self, request: Request, session: Session | None) -> Response | None:
        path = request.url.path
        if path == LOGIN:
            return None
        if session is None or not session.signed_in:
            # Only a page that was read, not one that was sent, can be gone back to.
            back = f"?next={quote(path)}" if request.method == "GET" and path != "/" else ""
            return RedirectResponse(LOGIN + back, status_code=303)
        if session.role is Role.ADMIN or path in (ANNOTATE, LOGOUT) or path.startswith(f"{ANNOTATE}/"):
            return None
        if path == "/":
            return RedirectResponse(ANNOTATE, status_code=303)
        raise Forbidden(f"{path} is for admins; annotators have the pages under {ANNOTATE}")
