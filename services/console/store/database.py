"""The database: opened, brought to the newest schema, and its transactions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from rlhf.contracts.errors import Unavailable

BUSY_S = 20.0
"""Seconds that a SQLite transaction waits for the one before."""
MIGRATION_LOCK = 7_458_120
"""Of PostgreSQL: consoles that start together migrate one after the other. Any number of our own."""


class DatabaseError(Exception):
    """The database cannot be opened or brought up to date; says why, and what to do."""


def parse_url(given: str) -> URL:
    """The URL that a setting means. Args: given, a path of a SQLite file, or a `postgresql://` URL.

    Raises:
        ValueError: it is neither.
    """
    if "://" not in given:
        return URL.create("sqlite", database=str(Path(given).expanduser()))
    try:
        url = make_url(given)
    except ArgumentError as error:
        raise ValueError("this is no URL; give a file, or postgresql://user:password@host/name") from error
    name = url.get_backend_name()
    if name == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if name == "sqlite":
        return url
    raise ValueError(f"{name} is no database that the console knows; give a file, or a postgresql:// URL")


class Store:
    """The open database. Safe to use from several threads."""

    def __init__(self, url: URL) -> None:
        """Opens the database, makes a SQLite file that is missing, and applies the migrations that it lacks.

        Args:
            url: of parse_url.

        Raises:
            DatabaseError: it cannot be reached, its driver is missing, or a newer console has been at it.
        """
        shown = url.render_as_string(hide_password=True)
        try:
            self.engine = _open(url)
            _migrate(self.engine)
        except ModuleNotFoundError as error:
            raise DatabaseError(
                f"{shown} needs the package {error.name}; pip install 'rlhf-services[postgresql]'"
            ) from error
        except CommandError as error:
            raise DatabaseError(
                f"{shown}: {error}; a newer console made this database: use that one, or another database"
            ) from error
        except (SQLAlchemyError, OSError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise DatabaseError(f"{shown} cannot be used: {reason}; set RLHF_CONSOLE_DATABASE") from error
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(writes=True), expire_on_commit=False)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that changes nothing.

        Raises:
            Unavailable: the database does not answer.
        """
        with _told(), self._read() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is committed at the end of the block, and rolled back when the block raises.

        Raises:
            Unavailable: the database does not answer, or others write to it all the time.
        """
        with _told(), self._write.begin() as session:
            yield session

    def close(self) -> None:
        """Closes its connections."""
        self.engine.dispose()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(f"the console's database does not answer ({error.orig}); try again", retry_after=2) from error


def _open(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if url.database and url.database != ":memory:":
        file = Path(url.database)
        file.parent.mkdir(parents=True, exist_ok=True)
        # People's names and comments are for the owner alone; SQLite gives its other files the same mode.
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(url, connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: object, _: object) -> None:
        # The driver shall begin nothing by itself: `begin` below does.
        connection.isolation_level = None  # type: ignore[attr-defined]
        for pragma in ("foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes fails at once where another wrote between: writers queue up first.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
