"""Rollouts: their settings in a job, and their queue message, which has everything a worker needs."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from rlhf.contracts.base import ArtifactRef, Contract, Prompt
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.reward import Aggregation, Objectives


class RolloutConfig(Contract):
    """How each step's responses are sampled. Penalties are allowed; importance weights then correct for them."""

    prompts_per_step: int = Field(16, ge=1, le=65536, description="prompts of one PPO step")
    samples_per_prompt: int = Field(4, ge=1, le=128, description="responses per prompt; >1 gives a group baseline")
    shards: int = Field(1, ge=1, le=4096, description="rollout tasks a step is cut into")
    max_staleness: int = Field(
        0,
        ge=0,
        le=16,
        description="steps that are sampled ahead while one is learned: their policy is so many versions old, and "
        "importance weights correct for it; 0: on-policy",
    )
    max_new_tokens: int = Field(64, ge=1, le=8192, description="length limit of a response, tokens")
    temperature: float = Field(1.0, gt=0, le=10, description="the learner divides its logits by the same")
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    no_repeat_ngram_size: int = Field(0, ge=0, le=64)
    missing_eos_penalty: float = Field(1.0, ge=0, description="subtracted when the length limit cut a response")
    repeated_ngram_penalty: float = Field(
        0.0, ge=0, description="subtracted at each token that completes an n-gram which its response had before"
    )
    repeated_ngram_size: int = Field(4, ge=2, le=64, description="tokens of such an n-gram")
    max_failed_fraction: float = Field(
        0.25, ge=0, le=1, description="of a step's samples; above it the job pauses with the reason"
    )

    @model_validator(mode="after")
    def _shards_hold_whole_prompts(self) -> Self:
        if self.shards > self.prompts_per_step:
            raise ValueError(
                f"shards={self.shards} exceeds prompts_per_step={self.prompts_per_step}; lower shards to it or less"
            )
        return self


class RolloutTask(Contract):
    """One shard of one PPO step; a repeated task makes the same request."""

    job: str
    step: int = Field(ge=0)
    shard: int = Field(ge=0)
    policy_version: int = Field(ge=0)
    adapter: ArtifactRef | None = Field(description="null: the base model (version 0)")
    prompts: list[Prompt] = Field(min_length=1)
    sampling: SamplingParams = Field(description="seed is set: it derives from job seed, step and shard")
    reward_model: ArtifactRef
    aggregation: Aggregation
    objectives: Objectives | None = None

    @property
    def batch_id(self) -> str:
        """`{job}:{step}:{shard}`: the same for every repetition of this task."""
        return f"{self.job}:{self.step}:{self.shard}"
