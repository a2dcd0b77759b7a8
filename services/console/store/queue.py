"""Which pair a person gets next, and how far a study and a person are.

Everybody judges every pair, unless the study wants a number of judgements a pair: a pair that has them then goes to
nobody else, and people who judge at the same time get different pairs. Questions that check attention are asked of
everybody who has something to judge after them, and are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.orm import Session

from services.console.store.database import Store
from services.console.store.judgements import open_study
from services.console.store.models import Judgement, Pair, Skip, Study, Turn

TURN_S = 600.0
"""Seconds for which a pair that somebody has before them counts as judged."""


@dataclass(frozen=True)
class Coverage:
    """Of a study that wants a number of judgements a pair. Attributes: given, of the wanted ones; wanted, in all."""

    given: int
    wanted: int


@dataclass(frozen=True)
class Progress:
    """How far somebody is with a study.

    Attributes:
        pairs: of the study, questions that check attention included.
        judged: by this person.
        skipped: by this person, and could come back.
        left: that this person could still judge.
        coverage: by everybody; None: every person judges every pair.
    """

    pairs: int
    judged: int
    skipped: int
    left: int
    coverage: Coverage | None


def take(store: Store, study: int, person: int) -> int | None:
    """The pair that a person gets next, in the study's order; None at the end.

    Raises:
        NotFound, Gone, Conflict: as open_study.
    """
    with store.reading() as session:
        if open_study(session, study).wanted is None:
            everything = select(Pair.id).where(_untouched(study, person))
            return session.scalar(everything.order_by(Pair.position).limit(1))
    with store.writing() as session:
        # One after the other: of two who come at once, the second sees what the first got.
        wanted = open_study(session, study, lock="alone").wanted
        following = _next_lacking(session, study, person, wanted or 0)
        turn = session.get(Turn, (study, person))
        if following is None:
            if turn is not None:
                session.delete(turn)
            return None
        if turn is None:
            turn = Turn(study_id=study, person_id=person)
            session.add(turn)
        turn.pair_id, turn.taken_at = following, time.time()
        return following


def progress(session: Session, study: Study, person: int) -> Progress:
    """How far a person is with a study. Args: person, the id."""

    def count(query: Select[Any]) -> int:
        return session.scalar(query.where(Pair.study_id == study.id)) or 0

    pairs = count(select(func.count()).select_from(Pair))
    judged = select(func.count()).join_from(Judgement, Pair, Judgement.pair_id == Pair.id)
    judged = judged.where(Judgement.person_id == person)
    skipped = select(func.count()).join_from(Skip, Pair, Skip.pair_id == Pair.id).where(Skip.person_id == person)
    left = select(func.count()).select_from(Pair).where(_untouched(study.id, person))
    if study.wanted is None:
        return Progress(pairs, count(judged), count(skipped), count(left), None)
    lacks = _judgements() < study.wanted
    skipped, left = (each.where(Pair.gold.is_(None), lacks) for each in (skipped, left))
    covered = coverage(session, study.id).get(study.id, Coverage(0, 0))
    return Progress(pairs, count(judged), count(skipped), count(left), covered)


def coverage(session: Session, study: int | None = None) -> dict[int, Coverage]:
    """How many of the wanted judgements are there, of studies that want a number. Args: study, None: all of them."""
    each = select(Pair.study_id, Study.wanted, func.count(Judgement.id).label("given"))
    each = each.join(Study, Pair.study_id == Study.id).outerjoin(Judgement, Judgement.pair_id == Pair.id)
    each = each.where(Study.wanted.is_not(None), Pair.gold.is_(None)).group_by(Pair.id, Pair.study_id, Study.wanted)
    pairs = (each if study is None else each.where(Study.id == study)).subquery()
    # More than are wanted on one pair make up for no lack on another.
    given = case((pairs.c.given < pairs.c.wanted, pairs.c.given), else_=pairs.c.wanted)
    query = select(pairs.c.study_id, func.sum(given), func.sum(pairs.c.wanted)).group_by(pairs.c.study_id)
    return {found: Coverage(int(there), int(wanted)) for found, there, wanted in session.execute(query)}


def _next_lacking(session: Session, study: int, person: int, wanted: int) -> int | None:
    """The first pair that lacks judgements, or a question that stands before it."""
    # Who has judged it and has not asked for the next one yet is counted once.
    given = select(Judgement.person_id).where(Judgement.pair_id == Pair.id).correlate(Pair)
    held = select(func.count()).where(
        Turn.pair_id == Pair.id,
        Turn.person_id != person,
        Turn.person_id.not_in(given),
        Turn.taken_at > time.time() - TURN_S,
    )
    lacks = _judgements() + held.correlate(Pair).scalar_subquery() < wanted
    untouched = select(Pair.id, Pair.position).where(_untouched(study, person)).order_by(Pair.position).limit(1)
    found = session.execute(untouched.where(Pair.gold.is_(None), lacks)).first()
    if found is None:
        return None
    question = session.execute(untouched.where(Pair.gold.is_not(None), Pair.position < found.position)).first()
    return int(found.id if question is None else question.id)


def _untouched(study: int, person: int) -> ColumnElement[bool]:
    """Of a study's pairs those that a person has neither judged nor put aside."""
    judged = select(Judgement.pair_id).where(Judgement.person_id == person)
    skipped = select(Skip.pair_id).where(Skip.person_id == person)
    return and_(Pair.study_id == study, Pair.id.not_in(judged), Pair.id.not_in(skipped))


def _judgements() -> ColumnElement[int]:
    """How many a pair has."""
    return select(func.count()).where(Judgement.pair_id == Pair.id).correlate(Pair).scalar_subquery()
