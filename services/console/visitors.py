"""What a route needs to know of its visitor, and the database."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from services.console.sessions import Session
from services.console.store.database import Store


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _person(request: Request) -> int:
    session: Session = request.state.session
    return session.person


AtStore = Annotated[Store, Depends(_store)]
PersonId = Annotated[int, Depends(_person)]
"""Who asks: of the signed cookie, never of a form or an address."""
Id = Annotated[int, Path(ge=1, lt=2**31)]
"""Of a row, in an address: as large as every database has them."""
