"""What stands before every page: the login, and the headers that keep a browser from running what we did not write."""

from __future__ import annotations

from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf.serving.service import OPEN_PATHS
from services.console.sessions import COOKIE, Sessions

STATIC = "/static/"
LOGIN = "/login"
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

    `request.state.session` is the visitor's session, or None.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        """Args: app, what to guard; sessions, who may enter."""
        self.app, self.sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, path = Request(scope), scope["path"]
        session = self.sessions.read(request.cookies.get(COOKIE))
        request.state.session = session

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Cache-Control"] = "no-cache" if path.startswith(STATIC) else "no-store"
            await send(message)

        is_open = path in OPEN_PATHS or path == LOGIN or path.startswith(STATIC)
        if is_open or (session is not None and session.signed_in):
            await self.app(scope, receive, send_guarded)
            return
        # Only a page that was read, not one that was sent, can be gone back to.
        back = f"?next={quote(path)}" if scope["method"] == "GET" and path != "/" else ""
        await RedirectResponse(LOGIN + back, status_code=303)(scope, receive, send_guarded)
