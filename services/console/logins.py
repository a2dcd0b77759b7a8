"""Who a key belongs to: the operator's is RLHF_API_KEY, everybody else's are in the database."""

from __future__ import annotations

import hmac

from services.console.guesses import Guesses
from services.console.sessions import Session
from services.console.store import people
from services.console.store.database import Store
from services.console.store.models import Person


class Logins:
    """Checks keys, and whether a login of earlier still holds. Safe to use from several threads."""

    def __init__(self, store: Store, api_key: str, guesses: Guesses) -> None:
        """Args: store, of people; api_key, the operator's; guesses, which limits wrong ones."""
        self._store, self._api_key, self._guesses = store, api_key.encode(), guesses
        self._operator = people.ensure_operator(store)

    def identify(self, key: str, address: str) -> Person | None:
        """Whose key it is; None for nobody's.

        Args:
            key: as it was given.
            address: that it came from.

        Raises:
            Overloaded: there were too many wrong ones.
            Unavailable: the database does not answer.
        """
        self._guesses.begin(address)
        person = self._find(key)
        if person is not None:
            self._guesses.forgive(address)
        return person

    def holds(self, session: Session) -> bool:
        """Whether a signed-in session's person still has that role and key.

        Raises:
            Unavailable: the database does not answer.
        """
        if session.role is None:
            return False
        with self._store.reading() as transaction:
            return people.is_current(transaction, session.person, session.generation, session.role)

    def _find(self, key: str) -> Person | None:
        if hmac.compare_digest(key.encode(), self._api_key):
            return self._operator
        with self._store.reading() as transaction:
            return people.find_by_key(transaction, key)
