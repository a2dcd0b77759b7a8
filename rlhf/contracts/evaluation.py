"""An evaluation job: what users submit. Data comes with the request, since no request may name a file or a URL."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rlhf.contracts.base import AdapterRef, ArtifactRef, Contract, Prompt
from rlhf.contracts.figures import wrong_gates
from rlhf.contracts.gates import Gates
from rlhf.contracts.patterns import Pattern
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.red_team import RedTeamConfig
from rlhf.contracts.reward import Aggregation, Expression, ObjectiveName, RewardSample, WordRange

Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]
SECTIONS = ("responses", "xstest", "bbq", "counterfactual", "red_team")


class _Metric(Contract):
    """What all metrics share."""

    name: ObjectiveName = Field(description="in the report; its own among the job's metrics")


class ExactMatchMetric(_Metric):
    """1 when the response is one of the references, white space at both ends left out; else 0."""

    kind: Literal["exact_match"]
    ignore_case: bool = True


class RougeMetric(_Metric):
    """ROUGE's F-measure by the package rouge-score (Lin 2004); of several references the best."""

    kind: Literal["rouge"]
    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    stemmer: bool = Field(True, description="Porter's, on both texts")


class JsonMetric(_Metric):
    """1 when the response is one JSON value (RFC 8259), white space around it left out; else 0."""

    kind: Literal["json"]
    required: list[Word] = Field(
        default_factory=list, max_length=64, description="keys that it must have, being an object; none: any value"
    )


class PatternMetric(_Metric):
    """1 when the pattern occurs in the response; else 0."""

    kind: Literal["pattern"]
    pattern: Expression = Field(description="in the syntax of docs.rs/regex")
    ignore_case: bool = True

    @model_validator(mode="after")
    def _pattern_can_be_used(self) -> Self:
        Pattern(self.pattern, ignore_case=self.ignore_case)
        return self


class LengthMetric(_Metric, WordRange):
    """1 for a response of `least` to `most` words; else it falls linearly with the words missing or too many, to 0."""

    kind: Literal["length"]


class PluginMetric(_Metric):
    """A function of a package's own, by its entry point in the group `rlhf.metrics` (see rlhf/evaluation/domain.py)."""

    kind: Literal["plugin"]
    entry_point: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")


Metric = Annotated[
    ExactMatchMetric | RougeMetric | JsonMetric | PatternMetric | LengthMetric | PluginMetric,
    Field(discriminator="kind"),
]


class EvaluationPrompt(Contract):
    """A prompt, and the answers that metrics with a reference compare with."""

    prompt: Prompt
    references: list[str] = Field(default_factory=list, max_length=64)


class ResponsesConfig(Contract):
    """Responses of both policies to the same prompts: win rate, repetition and diversity, KL, domain metrics."""

    prompts: list[EvaluationPrompt] = Field(min_length=1, max_length=100_000)
    sampling: SamplingParams = Field(
        default_factory=lambda: SamplingParams(max_new_tokens=128, n=1),
        description="of both; its seed is not used, each request's derives from the job's",
    )
    metrics: list[Metric] = Field(default_factory=list, max_length=32)

    @model_validator(mode="after")
    def _metrics_can_be_computed(self) -> Self:
        wrong = []
        counts = Counter(metric.name for metric in self.metrics)
        wrong += [f"{n} metrics have the name {name!r}; give each its own" for name, n in counts.items() if n > 1]
        if "reward" in counts:
            wrong.append("a metric has the name 'reward', which is the reward model's; give it another")
        if not any(each.references for each in self.prompts):
            wrong += [
                f"metric {metric.name!r} compares with references and no prompt has any; add `references`"
                for metric in self.metrics
                if isinstance(metric, ExactMatchMetric | RougeMetric)
            ]
        if self.sampling.n > 1 and self.sampling.temperature == 0:
            wrong.append(f"n={self.sampling.n} greedy samples are all the same; set n to 1 or a temperature")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class XsTestPrompt(Contract):
    """A prompt of XSTest (2308.01263): safe ones that look unsafe, and unsafe contrasts."""

    prompt: str = Field(min_length=1)
    type: str = Field(description="such as homonyms or contrast_homonyms")
    label: Literal["safe", "unsafe"]


class XsTestConfig(Contract):
    """Refusals of unsafe prompts and over-refusals of safe ones, decoded greedily, judged by string rules."""

    prompts: list[XsTestPrompt] = Field(min_length=1, max_length=100_000)
    max_new_tokens: int = Field(128, ge=8, le=8192, description="a refusal shows at the beginning")


class BbqQuestion(Contract):
    """A question of BBQ (2110.08193)."""

    category: str
    context_condition: Literal["ambig", "disambig"]
    polarity: Literal["neg", "nonneg"]
    context: str
    question: str
    answers: list[str] = Field(min_length=3, max_length=3)
    label: int = Field(ge=0, le=2, description="index of the right answer")
    unknown: int = Field(ge=0, le=2, description="index of the answer that it cannot be known")
    target: int | None = Field(
        None, ge=0, le=2, description="index of the answer with the stereotyped group; null: not known, no bias score"
    )

    @model_validator(mode="after")
    def _unknown_is_nobody(self) -> Self:
        if self.unknown == self.target:
            raise ValueError(f"answer {self.unknown} is both `unknown` and `target`; a group is no unknown")
        return self


class BbqConfig(Contract):
    """Accuracy and bias score of the paper; the answer with the highest log-likelihood a byte is the model's."""

    questions: list[BbqQuestion] = Field(min_length=1, max_length=100_000)


class NameSwap(Contract):
    """Names of one group that stand for names of another: the first with the first, and so on, in both directions."""

    name: ObjectiveName
    first: list[Word] = Field(min_length=1, max_length=256)
    second: list[Word] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _names_are_pairs(self) -> Self:
        if len(self.first) != len(self.second):
            raise ValueError(f"{len(self.first)} names and {len(self.second)} to swap them for; give pairs")
        counts = Counter(word.lower() for word in (*self.first, *self.second))
        twice = [word for word, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"the name {twice[0]!r} stands twice; each may have one counterpart")
        return self


class CounterfactualConfig(Contract):
    """How a reward changes when the people in a text change and nothing else does."""

    samples: list[RewardSample] = Field(min_length=1, max_length=100_000)
    gender: bool = Field(True, description="swap words such as he and she, mother and father")
    names: list[NameSwap] | None = Field(
        None, max_length=16, description="null: the names of Bertrand and Mullainathan (2004); []: none"
    )


class Measurements(Contract):
    """What is measured of an adapter, beside a baseline, by what policy and reward services answer."""

    baseline: AdapterRef | None = Field(None, description="as an adapter is named; null: the base model")
    reward_model: ArtifactRef | None = Field(None, description="judges responses and counterfactuals; null: none")
    aggregation: Aggregation = Field(default_factory=Aggregation)
    seed: int = Field(0, ge=0, lt=2**31)
    responses: ResponsesConfig | None = None
    xstest: XsTestConfig | None = None
    bbq: BbqConfig | None = None
    counterfactual: CounterfactualConfig | None = None
    red_team: RedTeamConfig | None = None

    @model_validator(mode="after")
    def _something_is_measured(self) -> Self:
        wrong = self._wrong()
        if all(getattr(self, name) is None for name in SECTIONS):
            wrong.append(f"nothing is measured; give one of {', '.join(SECTIONS)}")
        if self.counterfactual is not None and self.reward_model is None:
            wrong.append("counterfactual swaps are of rewards; name a reward_model")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong(self) -> list[str]:
        """What else is wrong, of a message that has more."""
        return []


class EvaluationJobConfig(Measurements):
    """`POST /jobs` with kind evaluation."""

    kind: Literal["evaluation"]
    adapter: AdapterRef = Field(
        description="`job@version`, or `job@latest` for the newest accepted one at submission: the job has its number"
    )
    gates: Gates = Field(
        default_factory=dict, description="figure to comparison, such as <= 0.05; the outcome is in evaluation.json"
    )
    promote: bool = Field(
        False, description="accept the adapter when all gates hold, so that `job@latest` may be it, else reject it"
    )

    def _wrong(self) -> list[str]:
        wrong = wrong_gates(self.gates, self) if any(getattr(self, name) is not None for name in SECTIONS) else []
        if self.adapter == self.baseline:
            wrong.append(f"adapter and baseline are both {self.adapter}; name two, or leave the baseline out")
        if self.promote and not self.gates:
            wrong.append("promote=true decides by gates and there are none; give gates, or leave promote out")
        return wrong
