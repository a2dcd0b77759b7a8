"""Settings of the policy service, read from the environment."""

from __future__ import annotations

from pydantic import Field

from rlhf.serving.settings import ServiceSettings, TorchSettings


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
