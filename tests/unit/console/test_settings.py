"""Where the console finds the password of its database."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.console.settings import ConsoleSettings

SERVICES = dict.fromkeys(("trainer_url", "policy_url", "reward_url"), "http://service:8000")


def settings(database: str, password: str, folder: Path) -> ConsoleSettings:
    file = folder / "password"
    file.write_text(password)
    given = {"api_key": "operator", "console_database": database, "console_database_password_file": file}
    return ConsoleSettings.model_validate(SERVICES | given)


def test_a_password_in_a_file_goes_into_the_url_whatever_its_characters(tmp_path: Path) -> None:
    read = settings("postgresql://console@db/console?sslmode=require", "a/b@c\n", tmp_path)
    # RFC 3986: / is %2F and @ is %40 in the part before the host.
    url = "postgresql+psycopg://console:a%2Fb%40c@db/console?sslmode=require"
    assert read.console_database.get_secret_value() == url
    assert "a/b" not in repr(read)


def test_a_password_in_the_url_is_kept(tmp_path: Path) -> None:
    given = "postgresql://console:mine@db/console"
    assert settings(given, "other", tmp_path).console_database.get_secret_value() == given


@pytest.mark.parametrize(
    ("database", "password", "reason"),
    [("runs/console.sqlite3", "p", "is a SQLite file"), ("postgresql://c@db/c", " \n", "password is empty; write")],
)
def test_a_password_that_fits_to_nothing_is_refused(database: str, password: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=reason):
        settings(database, password, tmp_path)
