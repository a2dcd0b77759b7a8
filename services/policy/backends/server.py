"""HTTP to the server behind a remote backend: JSON there and back, and its failures as our typed errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from rlhf.clients.http import retry_after_of
from rlhf.contracts.errors import (
    Conflict,
    GenerationFailed,
    InvalidInput,
    NotFound,
    Overloaded,
    ServiceError,
    TooLarge,
    Unavailable,
)

Body = TypeVar("Body", bound=BaseModel)
RETRY_SECONDS = 2.0
CONNECT_SECONDS = 5.0
PASSING = (429, 502, 503, 504)
_KINDS: dict[int, type[ServiceError]] = {
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
"""Other statuses under 500 say that the request was wrong, others from 500 on that the server failed."""


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Attributes:
        backend: `tgi` or `vllm`, for messages.
        url: without a path.
        api_key: sent as `Authorization: Bearer KEY`.
        timeout_s: seconds an answer may take.
    """

    backend: str
    url: str
    api_key: str | None = None
    timeout_s: float = 600.0


class Server:
    """Belongs to the event loop that first sends something. Nothing is sent twice; cancelling a call hangs up."""

    def __init__(self, address: Address, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Args: address, where it is; transport, in place of the network."""
        self.address = address
        self._http = httpx.AsyncClient(
            base_url=address.url.rstrip("/"),
            headers={} if address.api_key is None else {"Authorization": f"Bearer {address.api_key}"},
            timeout=httpx.Timeout(address.timeout_s, connect=CONNECT_SECONDS, pool=None),
            # The backend decides how many requests run at once.
            limits=httpx.Limits(max_connections=None),
            transport=transport,
            # As in our own clients: a proxy of the user's shell must not see the key.
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """The answer, once its status says success.

        Raises:
            Unavailable: the server cannot be reached, is not ready, or refuses our key.
            Overloaded: its queue is full; with its own Retry-After.
            InvalidInput, NotFound, Conflict, TooLarge: it refuses the request; with its own words.
            GenerationFailed: it failed, or did not answer in time.
        """
        where = f"{self.address.backend} at {self.address.url}{path}"
        try:
            answer = await self._http.request(method, path, json=body)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise GenerationFailed(
                f"{where} did not answer within {self.address.timeout_s:g} s; ask for fewer tokens, or raise "
                "RLHF_BACKEND_TIMEOUT_S"
            ) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(
                f"{where} cannot be reached ({reason}); is it running, and is RLHF_BACKEND_URL its address?",
                retry_after=RETRY_SECONDS,
            ) from error
        if not answer.is_success:
            raise self._error(where, answer)
        return answer

    async def fetch(self, kind: type[Body], method: str, path: str, body: dict[str, Any] | None = None) -> Body:
        """As `send`; the answer's body as a message. Raises GenerationFailed too when it is something else."""
        answer = await self.send(method, path, body)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise GenerationFailed(
                f"{self.address.backend} at {self.address.url}{path} answered something else than expected: {error}; "
                "is RLHF_BACKEND the right one for this server?"
            ) from error

    def _error(self, where: str, answer: httpx.Response) -> ServiceError:
        status = answer.status_code
        message = f"{where} answered {status}: {words_of(answer.text)}"
        if status in (401, 403):
            return Unavailable(f"{message}; set RLHF_BACKEND_API_KEY to that server's key", retry_after=RETRY_SECONDS)
        if status == 424 or (status >= 500 and status not in _KINDS):
            return GenerationFailed(message)
        wait = retry_after_of(answer)
        if wait is None and status in PASSING:
            wait = RETRY_SECONDS
        return _KINDS.get(status, InvalidInput)(message, retry_after=wait)


def words_of(text: str) -> str:
    """The message inside an error's body: TGI's and ours `{"error": ...}`, vLLM's `{"error": {"message": ...}}`."""
    try:
        found = json.loads(text)
    except ValueError:
        return text[:200].strip() or "an empty body"
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail") if key in found), None)
    return str(found) if found else text[:200]
