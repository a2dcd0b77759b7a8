"""Studies and their pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from rlhf.contracts.errors import InvalidInput, NotFound, ServiceError
from services.console.pairs import ScoredPair
from services.console.store.models import Judgement, Pair, Person, Skip, Study, Turn, Verdict

MOST_NAME = 100
MOST_WANTED = 10
"""Judgements a pair."""
Lock = Literal["shared", "alone"]


class Gone(ServiceError):
    """The study was deleted (410)."""

    status = 410
    error_type = "not_found"


def create(session: Session, study: Study, pairs: Sequence[ScoredPair]) -> Study:
    """Stores a study with its pairs.

    Args:
        session: that writes.
        study: new; its times are set here.
        pairs: in the order in which they are to be shown.

    Raises:
        InvalidInput: its name is empty or too long.
        IntegrityError: its form has made a study already.
    """
    if not 1 <= len(study.name) <= MOST_NAME:
        raise InvalidInput(f"the name has {len(study.name)} characters; give it 1 to {MOST_NAME}")
    study.created_at = time.time()
    session.add(study)
    session.flush()
    session.add_all(_row(study.id, position, pair) for position, pair in enumerate(pairs))
    return study


def find_by_form(session: Session, form_key: str) -> Study | None:
    """The study that a form made, if it made one."""
    return session.scalar(select(Study).where(Study.form_key == form_key))


def get(session: Session, study: int, *, lock: Lock | None = None) -> Study:
    """A study.

    Args:
        session: a transaction.
        study: its id.
        lock: until the transaction ends, nobody may delete it ("shared"), or do anything that locks it ("alone").

    Raises:
        NotFound: there is none.
        Gone: it was deleted.
    """
    found = _find(session, study, lock)
    if found.deleted_at is not None:
        raise Gone(
            f"the study {found.name!r} is gone: an admin deleted it, and what was judged in it went with it. There is "
            "nothing left to do here; thank you for what you did"
        )
    return found


def newest(session: Session, *, only_open: bool = False) -> list[Study]:
    """All studies but deleted ones, newest first. Args: only_open, those that may be judged."""
    query = select(Study).where(Study.deleted_at.is_(None)).order_by(Study.id.desc())
    return list(session.scalars(query.where(Study.closed_at.is_(None)) if only_open else query))


def set_open(session: Session, study: int, *, is_open: bool) -> None:
    """Lets people judge it, or ends that; what was judged stays. Raises: as get."""
    get(session, study, lock="alone").closed_at = None if is_open else time.time()


def remove(session: Session, study: int, name: str) -> None:
    """Deletes a study with its pairs and all that was judged; its datasets stay. Again, it changes nothing.

    Args:
        session: that writes.
        study: its id.
        name: as somebody typed it who is sure.

    Raises:
        NotFound: there is no such study.
        InvalidInput: it has another name.
    """
    found = _find(session, study, "alone")
    if found.deleted_at is not None:
        return
    # As a page shows it: a browser makes one space of several.
    if name.split() != found.name.split():
        raise InvalidInput(f"{name!r} is not the study's name; type {found.name!r} to delete it")
    pairs = select(Pair.id).where(Pair.study_id == study)
    session.execute(delete(Turn).where(Turn.study_id == study))
    for kind in (Judgement, Skip):
        session.execute(delete(kind).where(kind.pair_id.in_(pairs)))
    session.execute(delete(Pair).where(Pair.study_id == study))
    found.deleted_at = time.time()


def count_pairs(session: Session) -> dict[int, int]:
    """Pairs of every study."""
    counted = session.execute(select(Pair.study_id, func.count()).group_by(Pair.study_id))
    return dict(counted.all())


def count_judgements(session: Session) -> dict[int, int]:
    """Judgements of every study that has any."""
    query = select(Pair.study_id, func.count()).join(Judgement, Judgement.pair_id == Pair.id).group_by(Pair.study_id)
    return dict(session.execute(query).all())


def pairs_of(session: Session, study: int) -> list[Pair]:
    """A study's pairs, in its order."""
    return list(session.scalars(select(Pair).where(Pair.study_id == study).order_by(Pair.position)))


def judgements_of(session: Session, study: int) -> list[tuple[Judgement, str]]:
    """A study's judgements with the names of who gave them, the oldest first."""
    query = select(Judgement, Person.name).join(Pair, Judgement.pair_id == Pair.id)
    query = query.join(Person, Judgement.person_id == Person.id).where(Pair.study_id == study)
    return [(judgement, name) for judgement, name in session.execute(query.order_by(Judgement.id))]


def _find(session: Session, study: int, lock: Lock | None) -> Study:
    # SQLite knows no locks of rows and needs none: who writes there is alone.
    found = session.get(Study, study, with_for_update=None if lock is None else {"read": lock == "shared"})
    if found is None:
        raise NotFound(f"there is no study {study}; the list has all")
    return found


def _row(study: int, position: int, pair: ScoredPair) -> Pair:
    given = pair.given
    prompt = given.prompt if isinstance(given.prompt, str) else [turn.model_dump() for turn in given.prompt]
    row = Pair(
        study_id=study,
        position=position,
        prompt=prompt,
        response_a=given.responses[0],
        response_b=given.responses[1],
        policy_a=given.policies[0],
        policy_b=given.policies[1],
        gold=None if given.gold is None else Verdict(given.gold),
        disagreement=pair.disagreement,
    )
    if pair.scores is not None:
        first, second = pair.scores
        row.score_a, row.uncertainty_a = first.score, first.uncertainty
        row.score_b, row.uncertainty_b = second.score, second.uncertainty
    return row
