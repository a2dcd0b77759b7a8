"""Sessions as signed cookies, and the CSRF tokens that belong to them. No HTTP.

A cookie is `signed-in or not . expiry . random id . HMAC-SHA256 of these`. It holds no secret; nobody can make one
without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

COOKIE = "rlhf_console"
ANONYMOUS_S = 3600
"""Seconds that a login form may stay open."""


@dataclass(frozen=True)
class Session:
    """One browser's visit.

    Attributes:
        id: random; a login draws a new one, so that none which somebody knew before becomes a signed-in one.
        expires: seconds since the epoch.
        signed_in: False: it has seen the login form, and no more.
    """

    id: str
    expires: int
    signed_in: bool


class Sessions:
    """Issues and checks cookies. Safe to use from several threads."""

    def __init__(self, api_key: str, hours: float, now: Callable[[], float] = time.time) -> None:
        """Args: api_key, people's, which a change of signs everybody out; hours, of a login; now, the clock."""
        self._api_key = api_key
        # Bound to the API key, so that sessions outlive a restart and hold with every replica.
        self._secret = hmac.digest(api_key.encode(), b"rlhf console: sessions", hashlib.sha256)
        self._seconds, self._now = round(hours * 3600), now
        self._ended: dict[str, int] = {}
        self._lock = threading.Lock()

    def anonymous(self) -> Session:
        """A session for a login form."""
        return self._new(ANONYMOUS_S, signed_in=False)

    def log_in(self, given: str) -> Session | None:
        """A new session, or None for a wrong key."""
        if not hmac.compare_digest(given.encode(), self._api_key.encode()):
            return None
        return self._new(self._seconds, signed_in=True)

    def end(self, session: Session) -> None:
        """Signs a session out: its cookie is refused from now on. A restart forgets this; the browser's own is gone."""
        with self._lock:
            now = self._now()
            self._ended = {each: expires for each, expires in self._ended.items() if expires > now}
            self._ended[session.id] = session.expires

    def write(self, session: Session) -> str:
        """The cookie."""
        text = f"{'in' if session.signed_in else 'out'}.{session.expires}.{session.id}"
        return f"{text}.{self._sign('session', text)}"

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None unless we wrote it and it has neither expired nor been ended."""
        text, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        signed_in, expires, name = text.split(".")
        session = Session(name, int(expires), signed_in == "in")
        with self._lock:
            alive = session.expires > self._now() and session.id not in self._ended
        return session if alive else None

    def csrf(self, session: Session) -> str:
        """The token that a form of this session carries."""
        return self._sign("csrf", session.id)

    def holds(self, session: Session, token: str) -> bool:
        """Whether a form's token is this session's."""
        return hmac.compare_digest(token.encode(), self.csrf(session).encode())

    def _new(self, seconds: int, *, signed_in: bool) -> Session:
        return Session(secrets.token_urlsafe(24), int(self._now()) + seconds, signed_in)

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()
