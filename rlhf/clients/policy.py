"""The client of the policy service."""

from __future__ import annotations

from rlhf.clients.http import ServiceClient
from rlhf.contracts.openai import ChatCompletion, ChatRequest
from rlhf.contracts.policy import GenerateRequest, GenerateResponse, LogprobsRequest, LogprobsResponse


class PolicyClient(ServiceClient):
    """Responses for prompts, and how likely given responses are."""

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

    def logprobs(self, request: LogprobsRequest) -> LogprobsResponse:
        """Log-probabilities of responses that exist already; a repeated request gives the same.

        Raises:
            ServiceError: as generate.
        """
        return self.fetch(LogprobsResponse, "POST", "/logprobs", json=request.model_dump(mode="json"))

    def chat(self, request: ChatRequest) -> ChatCompletion:
        """One answer to a conversation, with its tokens' texts where the request asks for log-probabilities.

        Raises:
            ServiceError: as generate.
        """
        body = request.model_dump(mode="json", exclude_none=True)
        return self.fetch(ChatCompletion, "POST", "/v1/chat/completions", json=body)
