"""A reward model that was trained here: an ensemble on the server's backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future

from rlhf.contracts.errors import InvalidInput, ScoringFailed
from rlhf.contracts.reward import SampleFailure
from rlhf.lm.ensemble import RewardEnsemble
from rlhf.lm.exchanges import Exchange, encode_exchange
from rlhf.lm.loading import LanguageModel
from services.reward.instruments import BATCH_SAMPLES
from services.reward.model import MemberScores, Outcome, failure
from services.reward.panels.promises import kept
from services.reward.texts import Sample


class Bundle:
    """See RewardModel."""

    def __init__(self, ref: str, ensemble: RewardEnsemble, base: LanguageModel, *, token_budget: int) -> None:
        """Args: ref, `job@version`; ensemble, on base, the backbone; token_budget, padded tokens of a forward pass."""
        self.ref, self.ensemble = ref, ensemble
        self._tokenizer, self._token_budget = base.tokenizer, token_budget

    @property
    def members(self) -> int:
        """K."""
        return self.ensemble.shape.members

    def score(self, samples: Sequence[Sample]) -> Future[list[Outcome]]:
        """See RewardModel; done at once."""
        outcomes: dict[int, Outcome] = {}
        exchanges: dict[int, Exchange] = {}
        for index, sample in enumerate(samples):
            try:
                exchanges[index] = encode_exchange(
                    self._tokenizer, sample.prompt, sample.response, max_length=self.ensemble.shape.max_length
                )
            except (ScoringFailed, InvalidInput) as error:
                outcomes[index] = failure(error)
        if exchanges:
            BATCH_SAMPLES.observe(len(exchanges))
            told = self.ensemble.assess(list(exchanges.values()), token_budget=self._token_budget)
            rows = zip(exchanges.items(), told.scores.tolist(), told.novelty.tolist(), strict=True)
            for (index, exchange), members, novelty in rows:
                outcomes[index] = self._outcome(members, novelty, exchange)
        return kept([outcomes[index] for index in range(len(samples))])

    def _outcome(self, members: list[float], novelty: float, exchange: Exchange) -> Outcome:
        broken = [index for index, score in enumerate(members) if not math.isfinite(score)]
        if broken:
            return SampleFailure(
                error=f"member {broken[0]} of {self.ref} gave {members[broken[0]]}, which is no score; "
                "its weights are unsound: train it again",
                error_type="scoring",
            )
        return MemberScores(members, exchange.truncated, exchange.tokens, novelty)
