"""Sessions as signed cookies, and the CSRF tokens that belong to them. No HTTP.

A cookie is `role . person . generation . expiry . random id . HMAC-SHA256 of these`; before a login the role is `out`.
It holds no secret; nobody can make one without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.console.store.models import Role

COOKIE = "rlhf_console"
ANONYMOUS_S = 3600
"""Seconds that a login form may stay open."""
OUT = "out"


@dataclass(frozen=True)
class Session:
    """One browser's visit.

    Attributes:
        id: random; a login draws a new one, so that none which somebody knew before becomes a signed-in one.
        expires: seconds since the epoch.
        role: of the person; None: it has seen the login form, and no more.
        person: the id; 0 before a login.
        generation: of the person's key.
    """

    id: str
    expires: int
    role: Role | None = None
    person: int = 0
    generation: int = 0

    @property
    def signed_in(self) -> bool:
        """Whether there was a login."""
        return self.role is not None


class Sessions:
    """Issues and checks cookies. Safe to use from several threads."""

    def __init__(self, api_key: str, hours: float, now: Callable[[], float] = time.time) -> None:
        """Args: api_key, which a change of signs everybody out; hours, of a login; now, the clock."""
        # Bound to the API key, so that sessions outlive a restart and hold with every replica; the 2 is of the cookie's
        # form: one of an earlier form is refused, not misread.
        self._secret = hmac.digest(api_key.encode(), b"rlhf console: sessions 2", hashlib.sha256)
        self._seconds, self._now = round(hours * 3600), now
        self._ended: dict[str, int] = {}
        self._lock = threading.Lock()

    def anonymous(self) -> Session:
        """A session for a login form."""
        return Session(_draw(), int(self._now()) + ANONYMOUS_S)

    def begin(self, person: int, generation: int, role: Role) -> Session:
        """A new session of somebody who has shown the right key. Args: as Session's."""
        return Session(_draw(), int(self._now()) + self._seconds, role, person, generation)

    def end(self, session: Session) -> None:
        """Signs a session out: its cookie is refused from now on. A restart forgets this; the browser's own is gone."""
        with self._lock:
            now = self._now()
            self._ended = {each: expires for each, expires in self._ended.items() if expires > now}
            self._ended[session.id] = session.expires

    def write(self, session: Session) -> str:
        """The cookie."""
        person = f"{session.role or OUT}.{session.person}.{session.generation}"
        text = f"{person}.{session.expires}.{session.id}"
        return f"{text}.{self._sign('session', text)}"

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None unless we wrote it and it has neither expired nor been ended."""
        text, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        role, person, generation, expires, name = text.split(".")
        session = Session(name, int(expires), None if role == OUT else Role(role), int(person), int(generation))
        with self._lock:
            alive = session.expires > self._now() and session.id not in self._ended
        return session if alive else None

    def csrf(self, session: Session) -> str:
        """The token that a form of this session carries."""
        return self._sign("csrf", session.id)

    def holds(self, session: Session, token: str) -> bool:
        """Whether a form's token is this session's."""
        return hmac.compare_digest(token.encode(), self.csrf(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _draw() -> str:
    return secrets.token_urlsafe(24)
