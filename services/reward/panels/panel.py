"""A panel as a reward model: every member's standardised score of a sample, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from rlhf.contracts.errors import InvalidInput, ScoringFailed
from rlhf.contracts.reward import RewardSample, SampleFailure
from rlhf.lm.exchanges import check_characters
from services.reward.instruments import BATCH_SAMPLES
from services.reward.model import MemberScores, Outcome, failure
from services.reward.panels.members import RawOutcome, RawScore, ScaledMember
from services.reward.panels.promises import kept, then, together
from services.reward.texts import Sample


class PanelModel:
    """See RewardModel. A sample that one member cannot score is a failure, never the score of the others."""

    def __init__(self, members: Sequence[ScaledMember], turns: Callable[[Sample], RewardSample]) -> None:
        """Args: members, K; turns, takes a sample out of the backbone's chat template."""
        self._members, self._turns = members, turns

    @property
    def members(self) -> int:
        """K."""
        return len(self._members)

    def score(self, samples: Sequence[Sample]) -> Future[list[Outcome]]:
        """See RewardModel; remote members work while local ones compute here."""
        outcomes: dict[int, Outcome] = {}
        readable: dict[int, RewardSample] = {}
        for index, sample in enumerate(samples):
            try:
                readable[index] = _checked(self._turns(sample))
            except (ScoringFailed, InvalidInput) as error:
                outcomes[index] = failure(error)
        if not readable:
            return kept([outcomes[index] for index in range(len(samples))])
        BATCH_SAMPLES.observe(len(readable))
        order = sorted(range(self.members), key=lambda number: not self._members[number].member.remote)
        columns = {number: self._members[number].score(list(readable.values())) for number in order}

        def join(raw: list[list[RawOutcome]]) -> list[Outcome]:
            joined = dict(zip(readable, map(_outcome, zip(*raw, strict=True)), strict=True))
            return [outcomes[index] if index in outcomes else joined[index] for index in range(len(samples))]

        return then(together([columns[number] for number in range(self.members)]), join)


def _checked(sample: RewardSample) -> RewardSample:
    if not sample.response:
        raise ScoringFailed("the response is empty; a score needs at least one token: drop this sample or give it text")
    check_characters(sample.prompt, sample.response)
    return sample


def _outcome(members: Sequence[RawOutcome]) -> Outcome:
    scores: list[RawScore] = []
    for outcome in members:
        if isinstance(outcome, SampleFailure):
            return outcome
        scores.append(outcome)
    return MemberScores(
        [score.value for score in scores],
        truncated=any(score.truncated for score in scores),
        tokens=max(score.tokens for score in scores),
    )
