"""The tables, as typed models. A change here needs a migration; a test compares the two.

Responses of a pair are `a` and `b` in the database, whichever side of the screen they were on.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import JSON, Enum, ForeignKey, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from rlhf.contracts.base import Message, prompt_messages

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints, the same with every database, so that a migration can name them."""


class Role(StrEnum):
    """What a person may do: everything, or judge pairs."""

    ADMIN = "admin"
    ANNOTATOR = "annotator"


class Verdict(StrEnum):
    """What a person said of a pair."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"


def _words(kind: type[StrEnum]) -> Enum:
    """A column of plain text that reads as the enumeration: a further word needs no change of the schema."""
    return Enum(kind, native_enum=False, length=16, values_callable=lambda members: [each.value for each in members])


class Base(DeclarativeBase):
    """Of all tables. Times are seconds since the epoch."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {Role: _words(Role), Verdict: _words(Verdict)}  # noqa: RUF012 - SQLAlchemy's own form


class Person(Base):
    """Somebody who logs in.

    Attributes:
        salt, digest: of the key; null: the operator, whose key is RLHF_API_KEY and in no table.
        generation: rises with every new key and every removal: a session of another generation has ended.
        removed_at: null while the person may log in.
    """

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    role: Mapped[Role]
    salt: Mapped[str | None] = mapped_column(String(64))
    digest: Mapped[str | None] = mapped_column(String(64))
    generation: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[float]
    removed_at: Mapped[float | None]


class Study(Base):
    """A set of pairs to judge.

    Attributes:
        source: "upload" or "models".
        ordering: "random" or "disagreement".
        reward_model: that scored the responses; null: none did.
        blind: annotators are not told which policy wrote what.
        form_key: of the form that made it: the same form sent again makes no other.
        left_out: pairs whose two responses were the same text.
        wanted: judgements a pair; null: everybody judges every pair.
        closed_at: null while it may be judged.
        deleted_at: null while it is there. Afterwards its row is all that is left of it: its datasets name it, and its
            id is nobody else's, so that a page which was open before judges no other study's pair.
    """

    __tablename__ = "studies"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    source: Mapped[str] = mapped_column(String(16))
    ordering: Mapped[str] = mapped_column(String(16))
    reward_model: Mapped[str | None] = mapped_column(String(80))
    blind: Mapped[bool]
    form_key: Mapped[str] = mapped_column(String(64), unique=True)
    left_out: Mapped[int]
    wanted: Mapped[int | None]
    created_at: Mapped[float]
    closed_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class Pair(Base):
    """Two responses to a prompt.

    Attributes:
        position: in the study's order, from 0.
        policy_a, policy_b: who wrote them.
        score_a, score_b: means over the ensemble's members, uncertainty_a, uncertainty_b: their spread; null: unknown.
        disagreement: of the members about the better response, nats; null: unknown.
        gold: the right verdict of a question that checks attention; null: a pair as any other.
    """

    __tablename__ = "pairs"
    __table_args__ = (UniqueConstraint("study_id", "position"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    position: Mapped[int]
    prompt: Mapped[str | list[dict[str, str]]] = mapped_column(JSON)
    response_a: Mapped[str] = mapped_column(Text)
    response_b: Mapped[str] = mapped_column(Text)
    policy_a: Mapped[str] = mapped_column(String(100))
    policy_b: Mapped[str] = mapped_column(String(100))
    score_a: Mapped[float | None]
    score_b: Mapped[float | None]
    uncertainty_a: Mapped[float | None]
    uncertainty_b: Mapped[float | None]
    disagreement: Mapped[float | None]
    gold: Mapped[Verdict | None]

    @property
    def turns(self) -> list[Message]:
        """The prompt as a conversation."""
        prompt = self.prompt
        return prompt_messages(prompt if isinstance(prompt, str) else [Message.model_validate(each) for each in prompt])


class Judgement(Base):
    """One person's verdict on one pair.

    Attributes:
        reasons: keys of services.console.reasons; comment: in the person's own words.
        first: "a" or "b": which response stood first, on the left.
        replaced: the verdict that this one took the place of; null: it is the first.
        judged_at: when it was given or last changed.
    """

    __tablename__ = "judgements"
    __table_args__ = (UniqueConstraint("pair_id", "person_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    verdict: Mapped[Verdict]
    reasons: Mapped[list[str]] = mapped_column(JSON)
    comment: Mapped[str] = mapped_column(Text)
    first: Mapped[str] = mapped_column(String(1))
    replaced: Mapped[Verdict | None]
    judged_at: Mapped[float]
    pair: Mapped[Pair] = relationship(lazy="raise")


class Skip(Base):
    """A pair that a person put aside."""

    __tablename__ = "skips"
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True, index=True)
    skipped_at: Mapped[float]


class Turn(Base):
    """The pair that a person has before them, of a study that wants a number of judgements a pair."""

    __tablename__ = "turns"
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    taken_at: Mapped[float]


class Dataset(Base):
    """A version of a study's judgements as preference data; never changed.

    Attributes:
        version: within the study, from 1.
        content: JSON Lines, as `rlhf train` reads them.
        digest: SHA-256 of the content: judgements that did not change make no other version.
        counts: pairs, and those left out by reason.
    """

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("study_id", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    version: Mapped[int]
    content: Mapped[str] = mapped_column(Text, deferred=True)
    digest: Mapped[str] = mapped_column(String(64))
    counts: Mapped[dict[str, int]] = mapped_column(JSON)
    created_at: Mapped[float]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    study: Mapped[Study] = relationship(lazy="raise")


class Training(Base):
    """A job that was submitted on a dataset."""

    __tablename__ = "trainings"
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    job: Mapped[str] = mapped_column(String(64), primary_key=True)
    submitted_at: Mapped[float]
