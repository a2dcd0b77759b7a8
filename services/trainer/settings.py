"""Settings of the trainer's processes: the job API, and the workers of learner, rollouts and evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from rlhf.serving.panels import PanelSettings
from rlhf.serving.settings import Device, Dtype, ServiceSettings, StoreSettings


class TrainerSettings(StoreSettings):
    """What every trainer process needs: Redis, the artifact store, and the times that all of them must agree on."""

    model_config = SettingsConfigDict(env_prefix="RLHF_", extra="ignore")

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="redis://:PASSWORD@HOST:PORT/0; job records, queues, batches"
    )
    redis_password_file: Path | None = Field(
        None, description="file with the password of Redis, for a redis_url that holds none"
    )
    lease_s: float = Field(
        15.0, gt=0, le=3600, description="seconds after which a worker that stopped renewing counts as dead"
    )
    heartbeat_s: float = Field(3.0, gt=0, le=1200, description="seconds between renewals of a lease")
    visibility_timeout_s: int = Field(
        3600,
        ge=30,
        description="seconds after which Redis hands an unacknowledged Celery message out again; nothing depends on "
        "it: leases find dead workers sooner, and a message of work that is done or being done is a no-op",
    )
    experience_ttl_s: int = Field(3600, ge=1, description="seconds that the batches of an ended job stay in Redis")
    job_ttl_s: int = Field(
        30 * 86400, ge=60, description="seconds that the record and events of an ended job stay in Redis; files stay"
    )

    @model_validator(mode="after")
    def _read_redis_password(self) -> Self:
        url = urlsplit(self.redis_url.get_secret_value())
        if self.redis_password_file is not None and url.password is None:
            password = self.redis_password_file.read_text().strip()
            if not password:
                raise ValueError(f"{self.redis_password_file} is empty; write the password of Redis into it")
            user, _, host = url.netloc.rpartition("@")
            self.redis_url = SecretStr(url._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl())
        return self

    @model_validator(mode="after")
    def _heartbeats_fit_into_the_lease(self) -> Self:
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError(
                f"heartbeat_s={self.heartbeat_s:g} leaves no room for one missed renewal in lease_s={self.lease_s:g}; "
                f"set RLHF_HEARTBEAT_S to {self.lease_s / 2:g} or less"
            )
        return self


class ApiSettings(ServiceSettings, TrainerSettings, PanelSettings):
    """The job API, which also puts work that lost its worker back into the queue.

    It loads no model: of `model`, `dtype` and `max_batch_tokens`, to which other services are set, it makes estimates.
    """

    model: str | None = Field(
        None, description="the base model that the services serve: a folder or a Hub id, whose config.json is read"
    )
    dtype: Dtype = Field("float32", description="of the base model's weights")
    max_batch_tokens: int = Field(16384, ge=64, description="of the policy service: what its cache holds")
    max_body_bytes: int = Field(128 * 2**20, ge=1024, description="larger request bodies answer 413")
    reconcile_s: float = Field(2.0, gt=0, le=600, description="seconds between looks for jobs without a worker")
    enqueue_grace_s: float = Field(
        5.0,
        ge=0,
        le=600,
        description="seconds that a queued job may have neither message nor lease before it is requeued",
    )
    max_crashes: int = Field(
        3, ge=0, le=1000, description="times that a learner may die in a row without a step done before the job fails"
    )
    idempotency_ttl_s: int = Field(86400, ge=1, description="seconds that an Idempotency-Key is remembered")
    sse_keepalive_s: float = Field(15.0, gt=0, le=600, description="seconds between comments on a silent event stream")


class WorkerSettings(TrainerSettings):
    """A Celery worker."""

    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="of the JSON-lines log")
    metrics_host: str = Field("127.0.0.1", description="address of the metrics server; 0.0.0.0 in containers")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Prometheus port, open once the worker consumes; 0: any; null: none"
    )
    stop_grace_s: float = Field(
        8.0, gt=0, le=3600, description="seconds after SIGTERM in which running work may reach a good place to stop"
    )


class LearnerSettings(WorkerSettings):
    """The learner worker: one training job at a time."""

    model: str = Field(description="the base model: a local folder or a Hub id")
    device: Device = Field("cpu", description="where tensors live")
    dtype: Dtype = Field("float32", description="of the base model's weights; what is trained stays float32")
    threads: int = Field(0, ge=0, le=1024, description="torch threads; 0 leaves torch's own choice")
    peer_timeout_s: float = Field(
        600.0,
        ge=1,
        le=86400,
        description="of several processes (torchrun): seconds that one waits for the others within a step before all "
        "end; the job is taken up again from its checkpoint",
    )
    rollout_look_s: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="seconds between looks for missing batches that have neither message nor worker; two such looks in "
        "a row, and the task is sent again",
    )


class AskingSettings(WorkerSettings):
    """A worker that asks policy and reward."""

    policy_url: str = Field(description="base URL of the policy service or its load balancer")
    reward_url: str = Field(description="base URL of the reward service or its load balancer")
    api_key: SecretStr | None = Field(None, description="key sent to both as `Authorization: Bearer KEY`")
    api_key_file: Path | None = Field(None, description="file with the key, in place of api_key")

    @model_validator(mode="after")
    def _read_key(self) -> Self:
        if self.api_key is None and self.api_key_file is not None:
            self.api_key = SecretStr(self.api_key_file.read_text().strip())
        return self


class EvaluationSettings(AskingSettings):
    """An evaluation worker: one job at a time."""

    evaluation_timeout_s: float = Field(
        600.0, gt=0, le=86400, description="seconds that policy or reward may take to answer one request"
    )


class RolloutSettings(AskingSettings):
    """A rollout worker: a few tasks at a time, each waiting for policy and reward."""

    rollout_concurrency: int = Field(2, ge=1, le=256, description="rollout tasks at a time")
    rollout_time_limit_s: float = Field(
        600.0, gt=0, le=86400, description="hard limit of one try of a rollout task, seconds; then it is retried"
    )
    rollout_max_retries: int = Field(
        8,
        ge=0,
        le=1000,
        description="retries while policy or reward cannot be reached, are full or fail; then the job pauses",
    )
    rollout_backoff_s: float = Field(
        1.0, gt=0, le=600, description="seconds before the first retry; doubles, with jitter"
    )
    rollout_backoff_max_s: float = Field(60.0, gt=0, le=3600, description="longest pause between retries")
