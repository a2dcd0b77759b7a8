"""The client of the reward service."""

from __future__ import annotations

from urllib.parse import quote

from rlhf.clients.http import ServiceClient
from rlhf.contracts.reward import LoadedRewardModel, RewardModels, RewardRequest, RewardResponse


class RewardClient(ServiceClient):
    """Scores of responses. Errors are those of the server, by their type; Unavailable when it cannot be reached."""

    service = "reward"

    def score(self, request: RewardRequest) -> RewardResponse:
        """Scores samples; a repeated request gives the same scores, so it is safe to send again."""
        return self.fetch(RewardResponse, "POST", "/reward", json=request.model_dump(mode="json", by_alias=True))

    def models(self) -> RewardModels:
        """Reward models in memory and in the artifact store, and the default."""
        return self.fetch(RewardModels, "GET", "/models")

    def load(self, model: str) -> LoadedRewardModel:
        """Makes a reward model the default of this one server. Args: model, `job@version`.

        Raises:
            NotFound: no such reward model.
            Conflict: it is damaged or made for another backbone; the old default is still served.
        """
        return self.fetch(LoadedRewardModel, "POST", f"/models/{quote(model, safe='@')}/load")
