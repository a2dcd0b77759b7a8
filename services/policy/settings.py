"""Settings of the policy service, read from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from rlhf.serving.settings import ServiceSettings, TorchSettings, read_key


class PolicySettings(ServiceSettings, TorchSettings):
    """Environment variables with the prefix `RLHF_`."""

    max_batch_rows: int = Field(64, ge=1, le=4096, description="responses generated together; more wait")
    max_batch_tokens: int = Field(
        16384, ge=64, description="rows × (longest prompt + new tokens) that run; bounds the key-value cache's memory"
    )
    max_prefill_tokens: int = Field(
        512,
        ge=1,
        le=65536,
        description="prompt tokens computed between two tokens of those that run; bounds a stall",
    )
    prefix_tokens: int = Field(
        2048,
        ge=0,
        le=2**20,
        description="tokens of computed prompts kept for others that begin alike; costs their part of a cache; 0: none",
    )
    max_request_rows: int = Field(1024, ge=1, le=131072, description="prompts × n of one request; more answer 413")
    max_queue: int = Field(256, ge=1, le=65536, description="waiting requests; further ones answer 429")
    adapter_memory_mib: int = Field(
        1024,
        ge=1,
        le=2**20,
        description="merged weights of adapters in memory; the one used longest ago goes first",
    )
    packed_weights: bool = Field(True, description="oneDNN's blocked weight layout on CPUs that have it; faster")
    drain_seconds: float = Field(5.0, ge=0, le=3600, description="after SIGTERM, time for running requests to finish")

    backend: Literal["embedded", "tgi", "vllm"] = Field(
        "embedded", description="what computes: this process, or a server that has the same model; then no weights here"
    )
    backend_url: str | None = Field(
        None, pattern=r"^https?://[^/@]+(/[^@]*)?$", description="of the server behind the backends tgi and vllm"
    )
    backend_api_key: SecretStr | None = Field(None, description="key that the server wants as a bearer token")
    backend_api_key_file: Path | None = Field(None, description="file with that key, in place of backend_api_key")
    backend_timeout_s: float = Field(600.0, gt=0, le=86400, description="seconds the server may take for a response")
    backend_start_s: float = Field(
        600.0, ge=0, le=86400, description="seconds to wait at the start until the server can be reached"
    )
    backend_store: Path | None = Field(
        None, description="vllm: root of the artifact store as the server sees it; unset: the same path as here"
    )
    backend_max_adapters: int = Field(
        4, ge=1, le=4096, description="vllm: adapters loaded there at once; the one used longest ago goes first"
    )
    backend_adapter_name: str = Field(
        "{job}@{version}",
        pattern=r"^[\w.@:-]*\{job\}[\w.@:-]*\{version\}[\w.@:-]*$",
        max_length=64,
        description="what the server calls job@version; TGI's own names hold no @, so for it: {job}-{version}",
    )

    @model_validator(mode="after")
    def _know_the_server(self) -> Self:
        if self.backend != "embedded" and self.backend_url is None:
            raise ValueError(f"backend={self.backend} needs the address of its server; set RLHF_BACKEND_URL")
        if self.backend_api_key is None and self.backend_api_key_file is not None:
            self.backend_api_key = read_key(self.backend_api_key_file, "RLHF_BACKEND_API_KEY_FILE")
        return self
