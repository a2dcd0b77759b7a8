"""Settings of the reward service, read from the environment."""

from __future__ import annotations

from pydantic import Field

from rlhf.contracts.base import ArtifactRef
from rlhf.serving.panels import PanelSettings
from rlhf.serving.settings import ServiceSettings, TorchSettings


class RewardSettings(ServiceSettings, TorchSettings, PanelSettings):
    """Environment variables with the prefix `RLHF_`."""

    reward_model: ArtifactRef | None = Field(
        None, description="`job@version` or a panel, scored when a request names none, until another is loaded"
    )
    max_batch_tokens: int = Field(4096, ge=64, description="padded tokens of one forward pass of the trunk")
    max_request_samples: int = Field(4096, ge=1, le=65536, description="samples of one request; more answer 413")
    max_queue: int = Field(256, ge=1, le=65536, description="waiting requests; more answer 429, other dialects 503")
    bundles_kept: int = Field(4, ge=1, le=1024, description="reward models in memory; the least used one goes first")
    drain_seconds: float = Field(7.0, ge=0, le=3600, description="after SIGTERM, time for running requests to finish")
