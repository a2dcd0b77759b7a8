"""The client of the reward service."""

from __future__ import annotations

from rlhf.clients.http import ServiceClient
from rlhf.contracts.reward import RewardRequest, RewardResponse


class RewardClient(ServiceClient):
    """Scores of responses."""

    service = "reward"

    def score(self, request: RewardRequest) -> RewardResponse:
        """Scores samples; a repeated request gives the same scores, so it is safe to send again.

        Raises:
            ServiceError: the server's own error, by its type; Unavailable when it cannot be reached.
        """
        return self.fetch(RewardResponse, "POST", "/reward", json=request.model_dump(mode="json", by_alias=True))
