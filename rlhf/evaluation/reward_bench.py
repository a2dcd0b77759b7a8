"""A served reward model on pairs with a known answer, such as RewardBench's triples. Sends requests; loads no model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.contracts.base import ArtifactRef, turn_text
from rlhf.contracts.jobs import PreferencePair
from rlhf.contracts.reward import RewardRequest, RewardResponse, RewardSample, SampleFailure, SampleScore
from rlhf.data.formats import TypedPair
from rlhf.evaluation.preferences import wilson_interval

PAIRS_PER_REQUEST = 64


@dataclass(frozen=True)
class Judged:
    """What a reward model says of one pair.

    Attributes:
        subset: of the pair, where the source names one.
        difference: reward of chosen minus reward of rejected; None when one of them has none.
        longer: words of chosen minus words of rejected.
        failure: why there is no difference.
    """

    subset: str | None
    difference: float | None
    longer: int
    failure: SampleFailure | None = None

    @property
    def credit(self) -> float:
        """1 for a right verdict, 0.5 for a tie, 0 for a wrong one and for a failure."""
        return 0.0 if self.difference is None else _credit(self.difference)


def judge_pairs(
    score: Callable[[RewardRequest], RewardResponse],
    pairs: Sequence[TypedPair],
    *,
    model: ArtifactRef | None = None,
    after_request: Callable[[int], None] = lambda done: None,
) -> Iterator[Judged]:
    """Scores both responses of every pair, in order.

    Args:
        score: sends a request to the reward service.
        pairs: chosen is the better response.
        model: `job@version`; None: the server's default.
        after_request: called with the pairs done so far.

    Raises:
        ServiceError: a request failed as a whole.
        InvalidInput: a response is a conversation of more than one assistant turn; says which.
    """
    samples = [sample for index, each in enumerate(pairs) for sample in _samples(each.pair, index)]
    for start in range(0, len(pairs), PAIRS_PER_REQUEST):
        part = pairs[start : start + PAIRS_PER_REQUEST]
        asked = samples[2 * start : 2 * (start + len(part))]
        results = score(RewardRequest(samples=asked, model=model)).results
        for index, each in enumerate(part):
            both = slice(2 * index, 2 * index + 2)
            yield _judge(each.kind, asked[both], results[both])
        after_request(start + len(part))


def summarise(judged: Sequence[Judged]) -> dict[str, Any]:
    """Figures of all pairs, and of each subset where there are several."""
    subsets: dict[str, list[Judged]] = defaultdict(list)
    for each in judged:
        subsets[each.subset or "none"].append(each)
    several = {name: _figures(own) for name, own in sorted(subsets.items())} if len(subsets) > 1 else {}
    return {"all": _figures(judged), "subsets": several}


def describe(told: Mapping[str, Any]) -> str:
    """A table of what `summarise` gives, and the failures below it."""
    rows = {**told["subsets"], "all": told["all"]}
    width = max(len(name) for name in rows)
    lines = [f"{'':<{width}}   pairs  accuracy  95 % interval    ties  failed  longer one"]
    for name, own in rows.items():
        low, high = own["accuracy_ci95"]
        lines.append(
            f"{name:<{width}}  {own['pairs']:>6}  {own['accuracy']:>8.1%}  {low:>6.1%} to {high:>6.1%}  "
            f"{own['ties']:>4}  {sum(own['failed'].values()):>6}  {own['longer_is_preferred']:>10.1%}"
        )
    failed = told["all"]["failed"]
    lines += [f"{count} failed ({kind}), counted as wrong" for kind, count in failed.items()]
    return "\n".join(lines + ([f"the first: {told['all']['first_failure']}"] if failed else []))


def _samples(pair: PreferencePair, index: int) -> tuple[RewardSample, RewardSample]:
    chosen, rejected = (
        RewardSample(prompt=pair.prompt, response=turn_text(response, f"pairs.{index}.{name}"))
        for name, response in (("chosen", pair.chosen), ("rejected", pair.rejected))
    )
    return chosen, rejected


def _judge(
    subset: str | None, samples: Sequence[RewardSample], results: Sequence[SampleScore | SampleFailure]
) -> Judged:
    longer = len(samples[0].response.split()) - len(samples[1].response.split())
    chosen, rejected = results
    if isinstance(chosen, SampleFailure):
        return Judged(subset, None, longer, chosen)
    if isinstance(rejected, SampleFailure):
        return Judged(subset, None, longer, rejected)
    return Judged(subset, chosen.reward - rejected.reward, longer)


def _figures(judged: Sequence[Judged]) -> dict[str, Any]:
    count = len(judged)
    accuracy = sum(each.credit for each in judged) / count
    failures = [each.failure for each in judged if each.failure is not None]
    return {
        "pairs": count,
        # A pair without a score is not a right one: leaving it out would reward a model for what it cannot score.
        "accuracy": accuracy,
        "accuracy_ci95": list(wilson_interval(accuracy, count)),
        "ties": sum(each.difference == 0 for each in judged),
        "failed": dict(Counter(failure.error_type for failure in failures)),
        "first_failure": failures[0].error if failures else None,
        "longer_is_preferred": sum(_credit(each.longer) for each in judged) / count,
    }


def _credit(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)
