"""The client of the policy service."""

from __future__ import annotations

from rlhf.clients.http import ServiceClient
from rlhf.contracts.policy import GenerateRequest, GenerateResponse


class PolicyClient(ServiceClient):
    """Responses for prompts."""

    service = "policy"

    def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Samples responses.

        With a seed a repeated request gives the same responses, so it is safe to send again. One that names no seed
        may be drawn twice, of which one answer is returned.

        Raises:
            ServiceError: the server's own error, by its type; Unavailable when it cannot be reached.
        """
        body = request.model_dump(mode="json", by_alias=True)
        return self.fetch(GenerateResponse, "POST", "/generate", json=body)
