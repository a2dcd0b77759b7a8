"""Datasets: versions of a study's judgements, and the jobs that were trained on them."""

from __future__ import annotations

import time
from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, undefer

from rlhf.contracts.errors import Conflict, NotFound
from services.console.preferences import prefer
from services.console.store import studies
from services.console.store.models import Dataset, Training, Verdict


def freeze(session: Session, study: int, person: int) -> Dataset:
    """The study's judgements as they are now, as its next version; unchanged ones are the version that there is.

    Args:
        session: that writes.
        study: its id.
        person: who asks.

    Raises:
        NotFound: there is no such study.
        Gone: it was deleted.
        Conflict: no pair has a majority yet.
    """
    # Whoever freezes the same study meanwhile waits, so that versions have no gap and no double.
    studies.get(session, study, lock="alone")
    votes: dict[int, list[Verdict]] = defaultdict(list)
    for judgement, _ in studies.judgements_of(session, study):
        votes[judgement.pair_id].append(judgement.verdict)
    found = prefer(studies.pairs_of(session, study), votes)
    if not found.counts["pairs"]:
        told = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in found.counts.items() if count)
        raise Conflict(f"no pair has a response that most judgements prefer ({told}); judge some first")
    last = session.scalar(select(Dataset).where(Dataset.study_id == study).order_by(Dataset.version.desc()).limit(1))
    if last is not None and last.digest == found.digest:
        return last
    dataset = Dataset(
        study_id=study,
        version=1 if last is None else last.version + 1,
        content=found.content,
        digest=found.digest,
        counts=found.counts,
        created_at=time.time(),
        person_id=person,
    )
    session.add(dataset)
    session.flush()
    return dataset


def get(session: Session, dataset: int) -> Dataset:
    """A dataset with its content and its study.

    Raises:
        NotFound: there is none.
    """
    options = (undefer(Dataset.content), joinedload(Dataset.study))
    found = session.get(Dataset, dataset, options=options)
    if found is None:
        raise NotFound(f"there is no dataset {dataset}; the list has all")
    return found


def newest(session: Session) -> list[Dataset]:
    """All of them with their studies, without their contents, newest first."""
    return list(session.scalars(select(Dataset).options(joinedload(Dataset.study)).order_by(Dataset.id.desc())))


def of_study(session: Session, study: int) -> list[Dataset]:
    """A study's versions, newest first."""
    return list(session.scalars(select(Dataset).where(Dataset.study_id == study).order_by(Dataset.version.desc())))


def record_training(session: Session, dataset: int, job: str) -> None:
    """Notes that a job trains on a dataset; noted twice, it is once."""
    if session.get(Training, (dataset, job)) is None:
        session.add(Training(dataset_id=dataset, job=job, submitted_at=time.time()))


def trainings(session: Session, dataset: int) -> list[Training]:
    """The jobs on a dataset, newest first."""
    query = select(Training).where(Training.dataset_id == dataset)
    return list(session.scalars(query.order_by(Training.submitted_at.desc())))


def count_trainings(session: Session) -> dict[int, int]:
    """Jobs on every dataset that has any."""
    query = select(Training.dataset_id, func.count()).group_by(Training.dataset_id)
    return dict(session.execute(query).all())
