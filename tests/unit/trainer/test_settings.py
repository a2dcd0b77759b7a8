from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.trainer.settings import TrainerSettings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis:6379/0", "redis://:a%2Fb%40c@redis:6379/0"),
        ("redis://worker@redis:6379/0", "redis://worker:a%2Fb%40c@redis:6379/0"),
        ("redis://:own@redis:6379/0", "redis://:own@redis:6379/0"),
    ],
)
def test_password_file_fills_a_url_without_password(
    url: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("a/b@c\n")
    monkeypatch.setenv("RLHF_REDIS_URL", url)
    monkeypatch.setenv("RLHF_REDIS_PASSWORD_FILE", str(file))
    assert TrainerSettings().redis_url.get_secret_value() == expected


def test_empty_password_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("\n")
    monkeypatch.setenv("RLHF_REDIS_URL", "redis://redis:6379/0")
    monkeypatch.setenv("RLHF_REDIS_PASSWORD_FILE", str(file))
    with pytest.raises(ValidationError, match="is empty; write the password"):
        TrainerSettings()
