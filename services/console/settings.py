"""Settings of the console, read from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from rlhf.serving.settings import ServiceSettings
from services.console.store.database import parse_url


class ConsoleSettings(ServiceSettings):
    """Environment variables with the prefix `RLHF_`. `api_key` is what the operator logs in with."""

    trainer_url: str = Field(description="base URL of the job API")
    policy_url: str = Field(description="base URL of the policy service or its load balancer")
    reward_url: str = Field(description="base URL of the reward service or its load balancer")
    services_api_key: SecretStr | None = Field(
        None, description="key sent to trainer, policy and reward; null: the operator's, api_key"
    )
    console_database: SecretStr = Field(
        SecretStr("runs/console.sqlite3"),
        description="people, studies, judgements and datasets: a SQLite file, made where it is missing, or a "
        "postgresql:// URL",
    )
    console_database_password_file: Path | None = Field(
        None, description="file with the password of PostgreSQL, for a console_database that holds none"
    )
    login_guesses_per_address: int = Field(
        10, ge=1, le=1000, description="wrong keys from one address within login_window_s, after which it has to wait"
    )
    login_guesses: int = Field(100, ge=1, le=10_000, description="the same from all addresses together")
    login_window_s: float = Field(300.0, gt=0, le=86_400, description="seconds after which a wrong key is forgotten")
    session_hours: float = Field(12.0, gt=0, le=720, description="hours after which a login has to be repeated")
    jobs_timeout_s: float = Field(10.0, gt=0, le=600, description="seconds that the trainer may take to answer")
    playground_timeout_s: float = Field(
        300.0,
        gt=0,
        le=3600,
        description="seconds that policy or reward may take to answer the playground; in a stream, between two tokens",
    )
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="larger request bodies answer 413")

    @model_validator(mode="after")
    def _there_is_a_key(self) -> Self:
        if self.api_key is None:
            raise ValueError("the console has no login without a key; set RLHF_API_KEY or RLHF_API_KEY_FILE")
        return self

    @field_validator("console_database")
    @classmethod
    def _database_is_known(cls, given: SecretStr) -> SecretStr:
        parse_url(given.get_secret_value())
        return given

    @model_validator(mode="after")
    def _read_database_password(self) -> Self:
        url = parse_url(self.console_database.get_secret_value())
        if self.console_database_password_file is None or url.password is not None:
            return self
        if url.get_backend_name() == "sqlite":
            raise ValueError(
                "console_database is a SQLite file, which has no password; set RLHF_CONSOLE_DATABASE to a "
                "postgresql:// URL, or unset RLHF_CONSOLE_DATABASE_PASSWORD_FILE"
            )
        password = self.console_database_password_file.read_text().strip()
        if not password:
            raise ValueError(
                f"{self.console_database_password_file} is empty; write the password of PostgreSQL into it"
            )
        self.console_database = SecretStr(url.set(password=password).render_as_string(hide_password=False))
        return self

    @property
    def login_key(self) -> str:
        """What the operator logs in with."""
        if self.api_key is None:
            raise AssertionError("refused by _there_is_a_key")
        return self.api_key.get_secret_value()

    @property
    def key_for_services(self) -> str:
        """What the console itself sends to the other services."""
        return self.login_key if self.services_api_key is None else self.services_api_key.get_secret_value()
