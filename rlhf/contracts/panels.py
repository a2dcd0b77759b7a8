"""Panels: ensembles whose members were not trained here, as the operator writes them down. No I/O here.

The file of `RLHF_REWARD_PANELS` is a `Panels`: each panel by the `name@version` that requests and jobs give as a reward
model. Only the operator names models, files and addresses; no request does.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from rlhf.contracts.base import ArtifactRef, Contract
from rlhf.contracts.reward import RewardSample

Dialect = Literal["native", "openrlhf", "vllm_classify", "vllm_score", "tei_predict"]
WRITES_TEXT: tuple[Dialect, ...] = ("openrlhf", "vllm_score", "tei_predict")
"""Dialects that send a prompt as one text; the others send its messages."""


class _Member(Contract):
    """What all members share: a score is (raw - mean) / std. Without both, they are those of the panel's reference."""

    mean: float | None = Field(None, allow_inf_nan=False, description="of the raw scores of reference responses")
    std: float | None = Field(None, gt=0, allow_inf_nan=False, description="as mean")

    @model_validator(mode="after")
    def _mean_and_std_go_together(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean={self.mean} and std={self.std} make no scale; give both, or neither")
        return self


class ClassifierMember(_Member):
    """A sequence-classification model of Hugging Face, computed by this server."""

    kind: Literal["classifier"]
    model: str = Field(min_length=1, description="a local folder or a Hub id; safetensors only, no code of its own")
    revision: str | None = Field(None, description="commit, tag or branch on the Hub")
    label: int | str | None = Field(
        None, description="index or name of the output that is the score; null: the model has only one"
    )
    max_length: int | None = Field(None, ge=8, description="tokens of prompt and response; null: what the model holds")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the weights")


class RemoteMember(_Member):
    """A reward server, asked over HTTP."""

    kind: Literal["remote"]
    url: str = Field(pattern=r"^https?://[^/@]+(/[^@]*)?$", description="without the path of the dialect")
    dialect: Dialect = Field(description="native: another reward service of this project")
    model: str | None = Field(None, description="sent as `model`: `job@version`, or what the server calls it")
    label: int | str | None = Field(
        None,
        description="of the score: an index for vllm_classify, a name for tei_predict; null: there is only one output",
    )
    tokenizer: str | None = Field(
        None,
        description="folder or Hub id; its chat template writes the prompts that the server gets as text; null: they "
        "are sent as they are",
    )
    api_key_env: str | None = Field(None, description="environment variable with the key, sent as a bearer token")
    api_key_file: str | None = Field(None, description="file with the key, in place of api_key_env")
    timeout_s: float = Field(60.0, gt=0, le=3600, description="seconds that one answer may take")
    batch: int = Field(32, ge=1, le=4096, description="most samples of one HTTP request; TEI's own limit is 32")
    connections: int = Field(4, ge=1, le=64, description="HTTP requests at a time")

    @model_validator(mode="after")
    def _dialect_knows_what_is_set(self) -> Self:
        wanted = {"vllm_classify": int, "tei_predict": str}.get(self.dialect)
        if self.label is not None and (wanted is None or not isinstance(self.label, wanted)):
            need = "no label" if wanted is None else {int: "an index", str: "a name"}[wanted]
            raise ValueError(f"label={self.label!r} with dialect={self.dialect}, which takes {need}; correct it")
        if self.tokenizer is not None and self.dialect not in WRITES_TEXT:
            raise ValueError(
                f"tokenizer={self.tokenizer!r} with dialect={self.dialect}, which sends messages; remove it"
            )
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError(
                f"api_key_env={self.api_key_env!r} and api_key_file={self.api_key_file!r} are both set; keep one"
            )
        return self


Member = Annotated[ClassifierMember | RemoteMember, Field(discriminator="kind")]


class Panel(Contract):
    """K members, whose standardised scores become one reward as those of our own ensembles do."""

    members: list[Member] = Field(min_length=1, max_length=64)
    reference: list[RewardSample] | str | None = Field(
        None, description="samples that make mean 0 and std 1, or a JSON Lines file of `prompt` and `response`"
    )

    @model_validator(mode="after")
    def _every_member_has_a_scale(self) -> Self:
        bare = [index for index, member in enumerate(self.members) if member.mean is None]
        if bare and self.reference is None:
            raise ValueError(
                f"members.{bare[0]} has neither mean and std nor a reference to take them from, so that its scores "
                "could not be compared with others'; give it both, or give the panel a `reference`"
            )
        return self


class Panels(RootModel[dict[ArtifactRef, Panel]]):
    """The whole file: panels by their `name@version`."""
