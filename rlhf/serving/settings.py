"""Settings that every HTTP service shares, read from the environment. Not the settings of one service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]


class ServiceSettings(BaseSettings):
    """Environment variables with the prefix `RLHF_`; each service adds its own fields."""

    model_config = SettingsConfigDict(env_prefix="RLHF_", extra="ignore", secrets_dir=None)

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in containers")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 lets the system choose")
    api_key: SecretStr | None = Field(None, description="key that requests carry as `Authorization: Bearer KEY`")
    api_key_file: Path | None = Field(None, description="file with the key, in place of api_key")
    allow_no_key: bool = Field(False, description="serve without a key although the host is not loopback")
    max_body_bytes: int = Field(32 * 2**20, ge=1024, description="larger request bodies answer 413")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="of the JSON-lines log")

    @model_validator(mode="after")
    def _read_key_and_refuse_open_doors(self) -> Self:
        if self.api_key is None and self.api_key_file is not None:
            self.api_key = read_key(self.api_key_file, "RLHF_API_KEY_FILE")
        if self.api_key is not None and not self.api_key.get_secret_value():
            raise ValueError("the API key is empty; set RLHF_API_KEY to a non-empty text or unset it")
        if self.api_key is None and self.host not in ("127.0.0.1", "localhost", "::1") and not self.allow_no_key:
            raise ValueError(
                f"host={self.host} is reachable from other machines and no API key is set; "
                "set RLHF_API_KEY or RLHF_API_KEY_FILE, or RLHF_ALLOW_NO_KEY=true on a closed network"
            )
        return self


def read_key(path: Path, setting: str) -> SecretStr:
    """The key in a file, without the blanks around it.

    Args:
        path: of the file.
        setting: that named it.

    Raises:
        ValueError: the file cannot be read, or is empty; says which setting named it.
    """
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{setting}={path} cannot be read: {error}") from error
    if not key:
        raise ValueError(f"{setting}={path} is empty; write the key into it, or unset {setting}")
    return SecretStr(key)


class StoreSettings(BaseSettings):
    """Where published versions lie."""

    model_config = SettingsConfigDict(env_prefix="RLHF_", extra="ignore")

    store: Path = Field(Path("runs/store"), description="root of the artifact store, shared by all processes")
    store_remote: str | None = Field(
        None,
        description="s3://BUCKET/PREFIX, gs://..., az://... or file:///FOLDER: learner and evaluator copy there what "
        "they publish, and policy and reward take from there what their store lacks, so that they need not share it",
    )


class TorchSettings(StoreSettings):
    """Settings of every process that computes with torch."""

    model_config = SettingsConfigDict(env_prefix="RLHF_", extra="ignore")

    model: str = Field(description="the base model: a local folder or a Hub id")
    device: Device = Field("cpu", description="where tensors live")
    dtype: Dtype = Field("float32", description="of the base model's weights; what is trained stays float32")
    threads: int = Field(0, ge=0, le=1024, description="torch threads; 0 leaves torch's own choice")
