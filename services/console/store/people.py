"""People and their keys. A key is shown once, when it is drawn; the database has a digest of it."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from rlhf.contracts.errors import Conflict, InvalidInput, NotFound
from services.console.store.database import Store
from services.console.store.models import Person, Role

OPERATOR = "operator"
"""Who logs in with RLHF_API_KEY: an admin that nobody can remove."""
MOST_NAME = 80
_KEY = re.compile(r"([1-9][0-9]{0,8})-([A-Za-z0-9_-]{20,64})", re.ASCII)


def ensure_operator(store: Store) -> Person:
    """The operator, made with the first start on a database."""
    try:
        with store.writing() as session:
            if (found := session.scalar(select(Person).where(Person.name == OPERATOR))) is not None:
                return found
            operator = Person(name=OPERATOR, role=Role.ADMIN, generation=1, created_at=time.time())
            session.add(operator)
        return operator
    except IntegrityError:
        # Another console made it at the same moment.
        with store.reading() as session:
            return session.scalars(select(Person).where(Person.name == OPERATOR)).one()


def everyone(session: Session) -> list[Person]:
    """All people, removed ones last, then by name."""
    return sorted(session.scalars(select(Person)), key=lambda each: (each.removed_at is not None, each.name.lower()))


def find_by_key(session: Session, key: str) -> Person | None:
    """Whose key this is; None for nobody's, and for one of somebody who was removed."""
    if (parts := _KEY.fullmatch(key)) is None:
        return None
    person = session.get(Person, int(parts[1]))
    if person is None or person.removed_at is not None or person.salt is None or person.digest is None:
        return None
    return person if hmac.compare_digest(_digest(person.salt, parts[2]), person.digest) else None


def is_current(session: Session, person: int, generation: int, role: Role) -> bool:
    """Whether a login of this generation and role is good. Args: person, the id."""
    found = session.get(Person, person)
    return found is not None and found.removed_at is None and (found.generation, found.role) == (generation, role)


def add(session: Session, name: str, role: str) -> tuple[Person, str]:
    """A new person, and the key, which nothing can tell again.

    Raises:
        InvalidInput: the name is empty or too long, or the role is none.
        Conflict: somebody has the name.
    """
    if not 1 <= len(name) <= MOST_NAME:
        raise InvalidInput(f"the name has {len(name)} characters; give it 1 to {MOST_NAME}")
    if role not in list(Role):
        raise InvalidInput(f"role {role!r} is none; choose {' or '.join(Role)}")
    person = Person(name=name, role=Role(role), generation=0, created_at=time.time())
    session.add(person)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(f"there is a {name!r} already; draw a new key for that person, or give another name") from error
    return person, _draw_key(person)


def renew_key(session: Session, person: int) -> tuple[Person, str]:
    """Draws another key, which also brings back somebody who was removed. Logins with the old one end.

    Raises:
        NotFound: there is no such person.
        Conflict: it is the operator.
    """
    found = _get(session, person)
    return found, _draw_key(found)


def remove(session: Session, person: int) -> None:
    """Ends a person's key and logins; what the person judged stays. Again, it changes nothing. Raises: as renew_key."""
    found = _get(session, person)
    if found.removed_at is None:
        found.removed_at, found.salt, found.digest = time.time(), None, None
        found.generation += 1


def _get(session: Session, person: int) -> Person:
    found = session.get(Person, person, with_for_update=True)
    if found is None:
        raise NotFound(f"there is no person {person}; the list has all")
    if found.name == OPERATOR:
        raise Conflict(f"the {OPERATOR}'s key is RLHF_API_KEY, where the console runs; change it there")
    return found


def _draw_key(person: Person) -> str:
    secret, salt = secrets.token_urlsafe(24), secrets.token_hex(16)
    person.salt, person.digest = salt, _digest(salt, secret)
    person.generation += 1
    person.removed_at = None
    return f"{person.id}-{secret}"


def _digest(salt: str, secret: str) -> str:
    # Of 192 random bits, which nobody finds by trying: a slow digest would only slow logins down, for everybody.
    return hmac.new(salt.encode(), secret.encode(), hashlib.sha256).hexdigest()
