"""The database: its schema comes from migrations alone, and what cannot be opened says why."""

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from rlhf.contracts.errors import Unavailable
from services.console.store import database, people, studies
from services.console.store.database import DatabaseError, Store, parse_url
from services.console.store.models import Base


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "folder" / "console.sqlite3")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(parse_url(url))
    yield opened
    opened.close()


def difference(store: Store) -> list:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, Base.metadata)


def test_migrations_from_nothing_give_the_models_schema(store: Store) -> None:
    assert difference(store) == []


def test_an_earlier_database_is_brought_up_to_date_with_all_it_has(url: str) -> None:
    Path(url).parent.mkdir()
    engine, config = create_engine(parse_url(url)), Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = "name, source, ordering, blind, form_key, left_out, created_at"
        connection.execute(text(f"INSERT INTO studies ({columns}) VALUES ('Old', 'upload', 'random', 1, 'x', 0, 0)"))
    engine.dispose()
    store = Store(parse_url(url))
    assert difference(store) == []
    with store.reading() as session:
        assert [(each.name, each.deleted_at, each.wanted) for each in studies.newest(session)] == [("Old", None, None)]
    store.close()


def test_a_file_is_for_its_owner_and_opened_again_with_what_it_had(store: Store, url: str) -> None:
    assert stat.S_IMODE(Path(url).stat().st_mode) == 0o600
    operator = people.ensure_operator(store)
    again = Store(parse_url(url))
    assert people.ensure_operator(again).id == operator.id
    again.close()


def test_a_newer_database_is_not_touched(store: Store, url: str) -> None:
    with store.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="a newer console made this database"):
        Store(parse_url(url))


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are no tables, and long enough to be read as a header " * 20)
    with pytest.raises(DatabaseError, match=r"notes\.txt cannot be used: file is not a database"):
        Store(parse_url(str(file)))
    with pytest.raises(DatabaseError, match="RLHF_CONSOLE_DATABASE") as refused:
        Store(parse_url("postgresql://me:secret@127.0.0.1:9/x"))
    assert "secret" not in str(refused.value)


def test_a_missing_driver_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError, match=r"needs the package psycopg; pip install 'rlhf-services\[postgresql\]'"):
        Store(parse_url("postgresql://h/x"))


def test_a_setting_is_a_file_or_a_url() -> None:
    assert parse_url("a/b.sqlite3").render_as_string() == "sqlite:///a/b.sqlite3"
    assert parse_url("postgresql://h/x").drivername == "postgresql+psycopg"
    for wrong in ("mysql://h/x", "://", "http://h"):
        with pytest.raises(ValueError, match="give a file, or"):
            parse_url(wrong)


def test_a_block_that_raises_leaves_nothing(store: Store) -> None:
    def add_and_fail() -> None:
        with store.writing() as session:
            people.add(session, "Anna", "annotator")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    with store.reading() as session:
        assert people.everyone(session) == []


def test_a_database_that_is_away_is_told(store: Store) -> None:
    with store.writing() as session:
        session.execute(text("DROP TABLE people"))
    with pytest.raises(Unavailable, match="does not answer"), store.reading() as session:
        people.everyone(session)
