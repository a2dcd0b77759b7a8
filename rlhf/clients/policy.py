"""The client of the policy service."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pydantic import ValidationError

from rlhf.clients.http import ServiceClient
from rlhf.contracts.errors import ErrorBody, InternalError, Unavailable, error_from_body
from rlhf.contracts.openai import ChatChunk, ChatCompletion, ChatRequest
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

    async def chat_stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """The same answer, in parts while it is written. Closing the generator lets the request go.

        Raises:
            ServiceError: as generate, also in the middle; Unavailable when the stream ends before the answer does.
        """
        body = request.model_copy(update={"stream": True}).model_dump(mode="json", exclude_none=True)
        async with self.stream_async("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    return
                if data:
                    yield self._chunk(data)
        raise Unavailable(f"{self.service} at {self.url} broke off in the middle of its answer; send the request again")

    def _chunk(self, data: str) -> ChatChunk:
        try:
            return ChatChunk.model_validate_json(data)
        except ValidationError as error:
            # After the first byte the status is sent: an error comes as an event.
            try:
                told = ErrorBody.model_validate_json(data)
            except ValidationError:
                raise InternalError(
                    f"{self.service} at {self.url} streamed something else than ChatChunk: {error}; client and service "
                    "are of different versions, or the URL is another service's"
                ) from error
            raise error_from_body(told) from error
