"""What a job would take, as `POST /jobs?dry_run=true` answers. docs/memory.md has the formulas."""

from __future__ import annotations

from pydantic import Field

from rlhf.contracts.base import Contract
from rlhf.contracts.jobs import JobKind


class ModelFacts(Contract):
    """The served model as its config.json describes it."""

    name: str
    family: str
    layers: int
    width: int = Field(description="of the hidden state")
    parameters: int
    dtype: str = Field(description="of the base weights")


class MemoryEstimate(Contract):
    """Bytes of one process at its peak, by what holds them. Without the process itself and its libraries."""

    parts: dict[str, int]
    peak_bytes: int = Field(description="sum of the parts")


class WorkEstimate(Contract):
    """How much there is to do, with every response at its limit. A reward-model job has epochs for steps."""

    steps: int
    samples_per_step: int = Field(description="of a reward-model job: pairs")
    prompt_tokens_per_step: int = Field(description="each prompt once")
    response_tokens_per_step: int = Field(description="at most")
    samples: int = Field(description="of the whole job")
    tokens: int = Field(description="of the whole job: prompts and responses")
    redis_bytes_per_step: int = Field(description="experience that waits in Redis; 0 of a reward-model job")
    redis_bytes: int = Field(description="of all steps that wait together: checkpoint_every + max_staleness")


class TimeEstimate(Contract):
    """Hours of the whole job at the pace of an earlier one; null where none is known."""

    hours: float | None
    seconds_per_step: float | None
    basis: str = Field(description="which job's pace it is, or why there is none")


class Estimate(Contract):
    """An answer without a job: nothing was queued or written."""

    kind: JobKind
    model: ModelFacts | None
    model_unknown: str | None = Field(description="why the model's shape, and what depends on it, is null")
    learner: MemoryEstimate | None
    policy: MemoryEstimate | None = Field(description="of a policy server; null of a reward-model job")
    work: WorkEstimate
    flops: dict[str, float] | None = Field(description="floating-point operations of the whole job, by pass")
    time: TimeEstimate
    assumptions: list[str]
