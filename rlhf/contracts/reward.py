"""Bodies of the reward service, native dialect."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from rlhf.contracts.base import ArtifactRef, Contract, Prompt
from rlhf.contracts.errors import ErrorType


class Aggregation(Contract):
    """How K standardised member scores become one reward.

    mean: mean; min: worst case; lcb: mean - λ·std; uwo: mean - λ·var (Coste et al. 2310.02743).
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)

    method: Literal["mean", "min", "lcb", "uwo"] = "mean"
    lambda_: float = Field(0.5, ge=0.0, le=100.0, alias="lambda", description="weight of the uncertainty")


class RewardSample(Contract):
    """A prompt and the response to score."""

    prompt: Prompt
    response: str


class RewardRequest(Contract):
    """`POST /reward`."""

    samples: list[RewardSample] = Field(max_length=4096)
    model: ArtifactRef | None = Field(None, description="`job@version`; null is the server's default model")
    aggregation: Aggregation | None = Field(None, description="null is the server's default")


class SampleScore(Contract):
    """The score of one sample. Values are in units of the standardised scores (reference: mean 0, std 1)."""

    reward: float = Field(description="aggregated, what PPO receives")
    score: float = Field(description="mean over members")
    uncertainty: float = Field(description="population standard deviation over members; 0 when K = 1")
    members: list[float] = Field(description="K standardised scores")
    truncated: bool = Field(description="the prompt was cut from the left to fit; the response never is")


class SampleFailure(Contract):
    """Stands in place of a sample that could not be scored; never a score of 0."""

    error: str
    error_type: ErrorType


class RewardTimings(Contract):
    """Seconds."""

    queue_s: float
    inference_s: float


class RewardResponse(Contract):
    """Results in the order of the request's samples."""

    model: str
    results: list[SampleScore | SampleFailure]
    timings: RewardTimings
