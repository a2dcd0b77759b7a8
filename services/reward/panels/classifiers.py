"""A member that this process computes: a sequence-classification model of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from rlhf.contracts.errors import InvalidInput, ScoringFailed
from rlhf.contracts.reward import RewardSample
from rlhf.lm.classifiers import Classifier, ClassifierRow
from services.reward.model import failure
from services.reward.panels.members import RawOutcome, RawScore
from services.reward.panels.promises import kept


class ClassifierScorer:
    """See Member."""

    remote = False

    def __init__(self, name: str, classifier: Classifier, *, token_budget: int) -> None:
        """Args: name, for messages; token_budget, padded tokens of a forward pass."""
        self.name, self._classifier, self._token_budget = name, classifier, token_budget

    def score(self, samples: Sequence[RewardSample]) -> Future[list[RawOutcome]]:
        """See Member; done at once."""
        outcomes: dict[int, RawOutcome] = {}
        rows: dict[int, ClassifierRow] = {}
        for index, sample in enumerate(samples):
            try:
                rows[index] = self._classifier.encode(sample.prompt, sample.response)
            except (ScoringFailed, InvalidInput) as error:
                outcomes[index] = failure(error)
        scores = self._classifier.score(list(rows.values()), token_budget=self._token_budget)
        for (index, row), value in zip(rows.items(), scores, strict=True):
            outcomes[index] = RawScore(value, row.truncated, len(row.ids))
        return kept([outcomes[index] for index in range(len(samples))])
