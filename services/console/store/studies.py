"""Studies and their pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rlhf.contracts.errors import InvalidInput, NotFound
from services.console.pairs import ScoredPair
from services.console.store.models import Judgement, Pair, Person, Skip, Study, Verdict

MOST_NAME = 100


@dataclass(frozen=True)
class Progress:
    """How far somebody is with a study.

    Attributes:
        pairs: of the study, questions that check attention included.
        judged, skipped: by this person.
    """

    pairs: int
    judged: int
    skipped: int

    @property
    def left(self) -> int:
        """Pairs that the queue still has."""
        return self.pairs - self.judged - self.skipped


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


def get(session: Session, study: int) -> Study:
    """A study.

    Raises:
        NotFound: there is none.
    """
    found = session.get(Study, study)
    if found is None:
        raise NotFound(f"there is no study {study}; the list has all")
    return found


def newest(session: Session, *, only_open: bool = False) -> list[Study]:
    """All studies, newest first. Args: only_open, those that may be judged."""
    query = select(Study).order_by(Study.id.desc())
    return list(session.scalars(query.where(Study.closed_at.is_(None)) if only_open else query))


def set_open(session: Session, study: int, *, is_open: bool) -> None:
    """Lets people judge it, or ends that; what was judged stays. Raises: as get."""
    get(session, study).closed_at = None if is_open else time.time()


def count_pairs(session: Session) -> dict[int, int]:
    """Pairs of every study."""
    counted = session.execute(select(Pair.study_id, func.count()).group_by(Pair.study_id))
    return dict(counted.all())


def count_judgements(session: Session) -> dict[int, int]:
    """Judgements of every study that has any."""
    query = select(Pair.study_id, func.count()).join(Judgement, Judgement.pair_id == Pair.id).group_by(Pair.study_id)
    return dict(session.execute(query).all())


def progress(session: Session, study: int, person: int) -> Progress:
    """How far a person is with a study. Args: study, person, ids."""

    def count(kind: type[Judgement] | type[Skip]) -> int:
        query = select(func.count()).select_from(kind).join(Pair, kind.pair_id == Pair.id)
        return session.scalar(query.where(Pair.study_id == study, kind.person_id == person)) or 0

    pairs = session.scalar(select(func.count()).select_from(Pair).where(Pair.study_id == study)) or 0
    return Progress(pairs, count(Judgement), count(Skip))


def pairs_of(session: Session, study: int) -> list[Pair]:
    """A study's pairs, in its order."""
    return list(session.scalars(select(Pair).where(Pair.study_id == study).order_by(Pair.position)))


def judgements_of(session: Session, study: int) -> list[tuple[Judgement, str]]:
    """A study's judgements with the names of who gave them, the oldest first."""
    query = select(Judgement, Person.name).join(Pair, Judgement.pair_id == Pair.id)
    query = query.join(Person, Judgement.person_id == Person.id).where(Pair.study_id == study)
    return [(judgement, name) for judgement, name in session.execute(query.order_by(Judgement.id))]


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
