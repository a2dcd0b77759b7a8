"""What one person does in a study: a verdict on a pair, putting it aside, and back. Only ever about one's own rows.

Every function names the person whose login asked; none takes the id of a judgement, which could be somebody else's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from rlhf.contracts.errors import Conflict, NotFound
from services.console.store import studies
from services.console.store.database import Store
from services.console.store.models import Judgement, Pair, Skip, Study, Verdict


@dataclass(frozen=True)
class Opinion:
    """What somebody says of a pair. Attributes: as models.Judgement's."""

    verdict: Verdict
    reasons: list[str]
    comment: str
    first: str


def open_study(session: Session, study: int, *, lock: studies.Lock | None = None) -> Study:
    """A study that may be judged.

    Args:
        session: a transaction.
        study: its id.
        lock: as of studies.get.

    Raises:
        NotFound: there is none.
        Gone: it was deleted.
        Conflict: it is closed.
    """
    found = studies.get(session, study, lock=lock)
    if found.closed_at is not None:
        raise Conflict(f"the study {found.name!r} is closed; what you judged is kept")
    return found


def get_pair(session: Session, study: int, pair: int, *, writes: bool = False) -> Pair:
    """A pair of an open study. Args: writes, whether the transaction will: the study is there until it ends.

    Raises:
        NotFound: the study has no such pair.
        Gone, Conflict: as open_study.
    """
    open_study(session, study, lock="shared" if writes else None)
    found = session.get(Pair, pair)
    if found is None or found.study_id != study:
        raise NotFound(f"the study has no pair {pair}; go on with the next one")
    return found


def own(session: Session, pair: int, person: int) -> Judgement | None:
    """What this person said of a pair."""
    return session.scalar(select(Judgement).where(Judgement.pair_id == pair, Judgement.person_id == person))


def latest(session: Session, study: int, person: int) -> Judgement | None:
    """This person's last judgement in a study, with its pair."""
    query = select(Judgement).join(Pair, Judgement.pair_id == Pair.id).options(joinedload(Judgement.pair))
    query = query.where(Pair.study_id == study, Judgement.person_id == person)
    return session.scalar(query.order_by(Judgement.judged_at.desc(), Judgement.id.desc()).limit(1))


def judge(store: Store, study: int, pair: int, person: int, opinion: Opinion) -> None:
    """Keeps a judgement. The same one again changes nothing; another one on the same pair takes its place.

    Raises:
        NotFound, Gone, Conflict: as get_pair.
    """
    try:
        _judge(store, study, pair, person, opinion)
    except IntegrityError:
        # The same person's other request put in the first judgement between our look and our write.
        _judge(store, study, pair, person, opinion)


def skip(store: Store, study: int, pair: int, person: int) -> None:
    """Puts a pair aside, unless it is judged. Raises: as judge."""
    try:
        with store.writing() as session:
            get_pair(session, study, pair, writes=True)
            if own(session, pair, person) is None and session.get(Skip, (pair, person)) is None:
                session.add(Skip(pair_id=pair, person_id=person, skipped_at=time.time()))
    except IntegrityError:
        # The other request of a double click has put it aside.
        return


def bring_back(store: Store, study: int, person: int) -> None:
    """Puts everything that this person skipped back into the queue. Raises: as judge."""
    with store.writing() as session:
        open_study(session, study, lock="shared")
        pairs = select(Pair.id).where(Pair.study_id == study)
        session.execute(delete(Skip).where(Skip.person_id == person, Skip.pair_id.in_(pairs)))


def undo(store: Store, study: int, pair: int, person: int) -> None:
    """Takes this person's judgement of a pair back; where there is none, there is nothing to do. Raises: as judge."""
    with store.writing() as session:
        get_pair(session, study, pair, writes=True)
        session.execute(delete(Judgement).where(Judgement.pair_id == pair, Judgement.person_id == person))


def _judge(store: Store, study: int, pair: int, person: int, opinion: Opinion) -> None:
    with store.writing() as session:
        get_pair(session, study, pair, writes=True)
        session.execute(delete(Skip).where(Skip.pair_id == pair, Skip.person_id == person))
        query = select(Judgement).where(Judgement.pair_id == pair, Judgement.person_id == person).with_for_update()
        found = session.scalar(query)
        if found is None:
            found = Judgement(pair_id=pair, person_id=person, replaced=None)
            session.add(found)
        elif found.verdict != opinion.verdict:
            found.replaced = found.verdict
        elif (found.reasons, found.comment) == (opinion.reasons, opinion.comment):
            return
        found.verdict, found.first = opinion.verdict, opinion.first
        found.reasons, found.comment = opinion.reasons, opinion.comment
        found.judged_at = time.time()
