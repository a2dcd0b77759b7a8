"""Jobs: what users submit, what they read back. Every setting is documented and bounded where it is defined."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import ConfigDict, Field, model_validator

from rlhf.contracts.base import ArtifactRef, Contract, Prompt
from rlhf.contracts.evaluation import EvaluationJobConfig, Measurements
from rlhf.contracts.figures import wrong_gates
from rlhf.contracts.gates import Gates
from rlhf.contracts.reward import Aggregation, Objectives
from rlhf.contracts.rollout import RolloutConfig


class LoraConfig(Contract):
    """Low-rank adapters (2106.09685) on linear projections of the upper layers."""

    r: int = Field(16, ge=1, le=256, description="rank")
    alpha: float = Field(32.0, gt=0, description="scale: the update is (alpha / r)·BA")
    modules: Literal["all", "attention"] = Field(
        "all", description="projections that are adapted: attention's and the MLP's, or attention's q, k, v and output"
    )
    top_layers: int | None = Field(
        None, ge=1, description="adapt only the last so many layers, compute the rest once a step; null: all"
    )


class FullConfig(Contract):
    """Full fine-tuning: the upper layers' own weights and the final norm. Embeddings and vocabulary head stay."""

    top_layers: int | None = Field(
        None, ge=1, description="train only the last so many layers, compute the rest once a step; null: all"
    )


FULL_LEARNING_RATE = 1e-5
"""Of full fine-tuning, where a job names none: AdamW moves every weight by about so much a step."""


class KlConfig(Contract):
    """Weight β of the KL penalty against the reference policy."""

    schedule: Literal["adaptive", "fixed", "linear"] = Field("adaptive", description="how β moves (linear: to 0)")
    beta: float = Field(0.1, ge=0, le=100, description="β at the start")
    target: float = Field(6.0, gt=0, description="adaptive: KL per sequence to hold, nats")
    horizon: int = Field(10_000, ge=1, description="adaptive: samples over which β may move by 20 %")


class PpoUpdateConfig(Contract):
    """The update (1707.06347) over one step's batch."""

    epochs: int = Field(2, ge=1, le=64, description="passes over the batch")
    minibatches: int = Field(2, ge=1, le=1024, description="optimiser steps an epoch")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="AdamW; a job with `full` that names none gets 1e-5")
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="PPO steps over which the learning rate rises from 0")
    max_grad_norm: float = Field(1.0, gt=0)
    clip_ratio: float = Field(0.2, gt=0, lt=1)
    dual_clip: float | None = Field(
        None,
        gt=1,
        le=100,
        description="bound c·|A| of a token's loss at negative advantages A (1912.09729); null: none",
    )
    clip_value: float = Field(0.2, gt=0, description="value clipping range, same unit as the reward")
    value_coefficient: float = Field(0.1, ge=0)
    value_warmup_steps: int = Field(0, ge=0, description="first PPO steps, in which only the value head learns")
    gamma: float = Field(1.0, ge=0, le=1, description="discount")
    lam: float = Field(0.95, ge=0, le=1, description="GAE λ")
    baseline: Literal["group", "none"] = Field(
        "group", description="subtract the mean reward of the prompt's other samples (2402.14740)"
    )
    whiten_advantages: bool = True
    importance_cap: float = Field(2.0, ge=1, description="cap C of the truncated importance weight")
    max_kl_per_epoch: float | None = Field(
        None, gt=0, description="stop a step's epochs when the KL per token to the old policy passes this"
    )
    tokens_per_microbatch: int = Field(4096, ge=64, description="memory bound: tokens of one forward-backward pass")
    gradient_checkpointing: bool = Field(
        False, description="keep each trained layer's input alone and compute the layer again on the way back"
    )


class PpoJobConfig(Contract):
    """`POST /jobs` with kind ppo."""

    kind: Literal["ppo"]
    prompts: list[Prompt] = Field(min_length=1, max_length=1_000_000)
    reward_model: ArtifactRef
    aggregation: Aggregation = Field(default_factory=Aggregation)
    objectives: Objectives | None = Field(
        None, description="the reward is their weighted sum; null: reward_model's alone, at weight 1"
    )
    steps: int = Field(100, ge=1, le=1_000_000)
    seed: int = Field(0, ge=0, lt=2**31)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    update: PpoUpdateConfig = Field(default_factory=PpoUpdateConfig)
    kl: KlConfig = Field(default_factory=KlConfig)
    lora: LoraConfig | None = Field(
        default_factory=LoraConfig, description="train adapters; null together with `full`, which is the other way"
    )
    full: FullConfig | None = Field(None, description="train the weights themselves; null: adapters, see `lora`")
    checkpoint_every: int = Field(1, ge=1, description="steps; batches are acknowledged only after a checkpoint")
    evaluation: Measurements | None = Field(
        None, description="measured when training has ended, by an evaluation job that the trainer submits; null: none"
    )
    gates: Gates = Field(
        default_factory=dict,
        description="figure of the evaluation to comparison, such as <= 0.05; all must hold, or the version is "
        "rejected and `job@latest` stays what it was; none: the version is accepted",
    )
    promote: Literal["last", "best"] = Field("last", description="the version that may become `job@latest`")

    @model_validator(mode="after")
    def _gates_can_be_judged(self) -> Self:
        if wrong := wrong_gates(self.gates, self.evaluation):
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _train_one_thing(self) -> Self:
        if self.full is None:
            if self.lora is None:
                raise ValueError("lora is null and full is not set; give full={} to train the weights themselves")
            return self
        if "lora" in self.model_fields_set and self.lora is not None:
            raise ValueError("lora and full are both set; a job trains one of them: set lora to null or leave out full")
        self.lora = None
        if "learning_rate" not in self.update.model_fields_set:
            self.update = self.update.model_copy(update={"learning_rate": FULL_LEARNING_RATE})
        return self

    @property
    def trained(self) -> LoraConfig | FullConfig:
        """What learns: adapters, or the weights themselves."""
        return cast(LoraConfig, self.lora) if self.full is None else self.full


class PreferencePair(Contract):
    """One comparison, conversational or plain; extra columns of the source are ignored."""

    model_config = ConfigDict(extra="ignore")

    prompt: Prompt
    chosen: Prompt = Field(description="text, or a conversation of one assistant turn")
    rejected: Prompt
    margin: float = Field(0.0, ge=0, description="how much better chosen is; scaled by the job's margin_scale")
    split: Literal["train", "heldout"] | None = Field(
        None,
        description="null: split by prompt at validation_fraction; pairs with one prompt stay on one side",
    )


class RewardModelJobConfig(Contract):
    """`POST /jobs` with kind reward_model. Depth, split and pooling: see docs/decisions."""

    kind: Literal["reward_model"]
    pairs: list[PreferencePair] = Field(min_length=2, max_length=1_000_000)
    members: int = Field(5, ge=1, le=32, description="K")
    trunk_layers: int | None = Field(
        None, ge=1, description="layers of the backbone that are used, from the bottom; null: half of them"
    )
    member_layers: int = Field(1, ge=0, description="of these, so many last ones with a LoRA per member; 0: heads only")
    lora_r: int = Field(8, ge=1, le=256)
    learning_rate: float = Field(3e-3, gt=0, le=1, description="AdamW, falling linearly to 0 over all epochs")
    weight_decay: float = Field(
        0.01, ge=0, description="of the adapters; heads have a penalty that pairs new to them choose"
    )
    epochs: int = Field(5, ge=1, le=5, description="at most; early stopping on validation loss, the best is kept")
    patience: int = Field(
        2, ge=1, description="epochs without a better validation loss than earlier ones, then it stops"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="pairs of one optimiser step, of each member")
    pairs_per_microbatch: int | None = Field(
        None,
        ge=1,
        description="memory bound: pairs of one forward-backward pass, of each member; the gradients of a batch are "
        "summed, so it changes no result; null: the whole batch",
    )
    margin_scale: float = Field(0.0, ge=0, description="the loss's margin is margin_scale × the pair's margin")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    centring: float = Field(0.01, ge=0, description="η of η·(s_chosen + s_rejected)²")
    validation_fraction: float = Field(
        0.15,
        gt=0,
        le=0.4,
        description="share of the prompts that stops training and sets the temperature, with what members did not "
        "draw; where no pair is marked heldout, as many again measure the result",
    )
    spoilt_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="pairs added, as a share of the training pairs: a preferred response against itself cut off, "
        "looped or shuffled",
    )
    max_length: int = Field(1024, ge=8, description="tokens; longer prompts are cut from the left, responses never")
    seed: int = Field(0, ge=0, lt=2**31)


Priority = Annotated[
    int,
    Field(
        ge=-10,
        le=10,
        description="a free learner takes the highest first, of equal ones the oldest; 0: normal. No running job is "
        "stopped for another",
    ),
]
JobKind = Literal["ppo", "reward_model", "evaluation"]
AnyJobConfig = PpoJobConfig | RewardModelJobConfig | EvaluationJobConfig
JobConfig = Annotated[AnyJobConfig, Field(discriminator="kind")]


class JobState(StrEnum):
    """queued → running ⇄ paused → succeeded | failed | cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the job can no longer change."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobEvent(Contract):
    """Something worth telling the user. Watchdogs use kind `watchdog` and give value, threshold and hint in data."""

    id: str = Field(description="position in the job's event stream")
    time: float = Field(description="seconds since the epoch")
    kind: Literal["state", "progress", "watchdog", "log", "published"]
    level: Literal["info", "warning", "error"] = "info"
    name: str
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class BestVersion(Contract):
    """The version of a PPO job's adapter that did best so far, by means over a few steps."""

    step: int = Field(description="steps it has learned")
    adapter: ArtifactRef = Field(description="its name for policy servers")
    reward: float = Field(description="mean reward of its samples, over these steps")
    kl: float = Field(description="KL per sequence, nats, over these steps")


class JobStatus(Contract):
    """`GET /jobs/{id}`."""

    id: str
    kind: JobKind
    priority: Priority = 0
    state: JobState
    step: int
    total_steps: int
    progress: float = Field(ge=0, le=1)
    eta_s: float | None = Field(description="seconds left at the present pace; null when unknown")
    created_at: float
    started_at: float | None
    finished_at: float | None
    last_metrics: dict[str, float]
    best: BestVersion | None = Field(None, description="null: too few steps to tell, or another kind of job")
    reason: str | None = Field(description="why it failed, paused or was cancelled")
    attempts: int = Field(description="how many times a worker began it; >1 after a crash")


class JobRecord(Contract):
    """`record.json` in the folder of a job that a worker ended: its record and events outlive Redis there."""

    FILE: ClassVar[str] = "record.json"

    status: JobStatus
    events: list[JobEvent] = Field(description="in order, without progress, which metrics.jsonl has")


class MetricsSeries(Contract):
    """`GET /jobs/{id}/metrics`: one row a step, in order."""

    rows: list[dict[str, Any]]


class ArtifactFile(Contract):
    """One downloadable file of a job."""

    path: str
    bytes: int
