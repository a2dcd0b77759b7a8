"""Settings of the trainer's processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.trainer.settings import ApiSettings, LearnerSettings, RolloutSettings, TrainerSettings


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


def test_a_heartbeat_must_fit_twice_into_a_lease() -> None:
    with pytest.raises(ValidationError, match=r"RLHF_HEARTBEAT_S to 2 or less"):
        TrainerSettings(lease_s=4, heartbeat_s=3)


def test_variables_have_the_prefix_and_secrets_stay_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\n")
    for name, value in {
        "REDIS_URL": "redis://:pw@host:1/0",
        "POLICY_URL": "http://policy",
        "REWARD_URL": "http://reward",
        "API_KEY_FILE": str(tmp_path / "key"),
        "STORE": "/store",
    }.items():
        monkeypatch.setenv(f"RLHF_{name}", value)
    settings = RolloutSettings()
    assert settings.redis_url.get_secret_value() == "redis://:pw@host:1/0"
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "sesame"
    assert settings.store == Path("/store")
    assert "pw" not in repr(settings)
    assert "sesame" not in repr(settings)


def test_the_api_refuses_an_open_door() -> None:
    with pytest.raises(ValidationError, match="RLHF_API_KEY"):
        ApiSettings(host="0.0.0.0")


def test_every_setting_says_what_it_is() -> None:
    for kind in (ApiSettings, LearnerSettings, RolloutSettings):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []
        assert len(kind.model_fields) <= 50
