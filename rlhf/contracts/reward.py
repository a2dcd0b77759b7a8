"""Bodies of the reward service, native dialect."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from rlhf.contracts.base import ArtifactRef, Contract, Prompt
from rlhf.contracts.errors import ErrorType
from rlhf.contracts.patterns import Pattern

ObjectiveName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""Names an objective in results and metrics."""

Expression = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class WordRange(Contract):
    """Lengths of a response that are as wanted."""

    least: int = Field(0, ge=0, le=100_000, description="words")
    most: int = Field(ge=1, le=100_000, description="words")

    @model_validator(mode="after")
    def _range_holds_a_length(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least={self.least} exceeds most={self.most}; lower least to it or less")
        return self


class Aggregation(Contract):
    """How K standardised member scores become one reward.

    mean: mean; min: worst case; lcb: mean - λ·std; uwo: mean - λ·var (Coste et al. 2310.02743).
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)

    method: Literal["mean", "min", "lcb", "uwo"] = "mean"
    lambda_: float = Field(0.5, ge=0.0, le=100.0, alias="lambda", description="weight of the uncertainty")


class _Weighted(Contract):
    """What all objectives share; `name`, by default its kind, is theirs alone in a request."""

    weight: float = Field(
        1.0, ge=-100, le=100, allow_inf_nan=False, description="of its value in the reward; 0 only reports it"
    )


class PreferenceObjective(_Weighted):
    """The reward of the request's own model, by the request's aggregation."""

    kind: Literal["preference"]
    name: ObjectiveName = "preference"


class EnsembleObjective(_Weighted):
    """The reward of a further model, by an aggregation of its own."""

    kind: Literal["ensemble"]
    name: ObjectiveName = "ensemble"
    model: ArtifactRef = Field(description="`job@version`")
    aggregation: Aggregation = Field(default_factory=Aggregation)


class RepetitionObjective(_Weighted):
    """-(share of the response's word n-grams that repeat an earlier one): in (-1, 0]."""

    kind: Literal["repetition"]
    name: ObjectiveName = "repetition"
    ngram: int = Field(4, ge=1, le=64, description="words of an n-gram; a shorter response has none, hence 0")


class LengthObjective(_Weighted, WordRange):
    """0 for a response of `least` to `most` words; else -(words missing or too many) / (the bound passed), from -1."""

    kind: Literal["length"]
    name: ObjectiveName = "length"


class PatternObjective(_Weighted):
    """-1 when any of the patterns occurs in the response, else 0."""

    kind: Literal["pattern"]
    name: ObjectiveName = "pattern"
    patterns: list[Expression] = Field(
        min_length=1,
        max_length=64,
        description=r"words or regular expressions in the syntax of docs.rs/regex, without look-around and "
        r"backreferences; `\b` on both sides keeps to whole words",
    )
    ignore_case: bool = True

    @model_validator(mode="after")
    def _patterns_can_be_used(self) -> Self:
        for expression in self.patterns:
            if Pattern(expression, ignore_case=self.ignore_case).occurs_in(""):
                raise ValueError(
                    f"the pattern {expression!r} occurs in an empty text, hence anywhere; make it need a letter"
                )
        return self


def _names_are_unique(objectives: list[Objective]) -> list[Objective]:
    counts = Counter(objective.name for objective in objectives)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{counts[twice[0]]} objectives have the name {twice[0]!r}; give each a `name` of its own")
    return objectives


Objective = Annotated[
    PreferenceObjective | EnsembleObjective | RepetitionObjective | LengthObjective | PatternObjective,
    Field(discriminator="kind"),
]
Objectives = Annotated[list[Objective], Field(min_length=1, max_length=16), AfterValidator(_names_are_unique)]
"""What a reward is the weighted sum of."""

PREFERENCE_ALONE: list[Objective] = [PreferenceObjective(kind="preference")]
"""The objectives of a request that names none."""


class RewardSample(Contract):
    """A prompt and the response to score."""

    prompt: Prompt
    response: str


class RewardRequest(Contract):
    """`POST /reward`."""

    samples: list[RewardSample] = Field(max_length=4096)
    model: ArtifactRef | None = Field(None, description="`job@version`; null is the server's default model")
    aggregation: Aggregation | None = Field(None, description="null is the server's default")
    objectives: Objectives | None = Field(None, description="null: the preference alone, at weight 1")


class SampleScore(Contract):
    """The score of one sample. Values are in units of the standardised scores (reference: mean 0, std 1).

    Score, uncertainty, members, novelty and truncated are those of the request's own model, whatever the objectives.
    """

    reward: float = Field(description="weighted sum of the objectives, what PPO receives")
    objectives: dict[str, float] = Field(description="each one's value by its name, before its weight")
    score: float = Field(description="mean over members")
    uncertainty: float = Field(description="population standard deviation over members; 0 when K = 1")
    members: list[float] = Field(description="K standardised scores")
    novelty: float | None = Field(
        None,
        ge=0,
        description="how unlike the responses that it learned from the model finds this one: 1 is usual among those, "
        "looped, shuffled or foreign text has more; null: a panel, which does not know",
    )
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


class RewardModels(Contract):
    """`GET /models`."""

    backbone: str
    loaded: list[ArtifactRef] = Field(description="in memory: panels, then bundles, the one used last at the end")
    default: ArtifactRef | None = Field(description="scored when a request names none")
    available: list[ArtifactRef] = Field(
        description="in the artifact store, by name and version; not verified before it is loaded or first named"
    )


class LoadedRewardModel(Contract):
    """`POST /models/{name}/load`: the default has changed."""

    default: ArtifactRef = Field(description="scored from now on when a request names none")
    replaced: ArtifactRef | None = Field(description="the default before; load it to go back")
