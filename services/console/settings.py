"""Settings of the console, read from the environment."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator

from rlhf.serving.settings import ServiceSettings


class ConsoleSettings(ServiceSettings):
    """Environment variables with the prefix `RLHF_`. `api_key` is what people log in with."""

    trainer_url: str = Field(description="base URL of the job API")
    policy_url: str = Field(description="base URL of the policy service or its load balancer")
    reward_url: str = Field(description="base URL of the reward service or its load balancer")
    services_api_key: SecretStr | None = Field(
        None, description="key sent to trainer, policy and reward; null: the one that people log in with"
    )
    session_hours: float = Field(12.0, gt=0, le=720, description="hours after which a login has to be repeated")
    jobs_timeout_s: float = Field(10.0, gt=0, le=600, description="seconds that the trainer may take to answer")
    playground_timeout_s: float = Field(
        300.0,
        gt=0,
        le=3600,
        description="seconds that policy or reward may take to answer the playground; in a stream, between two tokens",
    )
    max_body_bytes: int = Field(4 * 2**20, ge=1024, description="larger request bodies answer 413")

    @model_validator(mode="after")
    def _there_is_a_key(self) -> Self:
        if self.api_key is None:
            raise ValueError("the console has no login without a key; set RLHF_API_KEY or RLHF_API_KEY_FILE")
        return self

    @property
    def login_key(self) -> str:
        """What people log in with."""
        if self.api_key is None:
            raise AssertionError("refused by _there_is_a_key")
        return self.api_key.get_secret_value()

    @property
    def key_for_services(self) -> str:
        """What the console itself sends to the other services."""
        return self.login_key if self.services_api_key is None else self.services_api_key.get_secret_value()
