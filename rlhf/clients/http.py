"""What the clients share: one connection pool, the API key, retries, and the server's errors raised as they were there.

Not a client of one service: those subclass `ServiceClient`. Safe to use from several threads.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from rlhf.contracts.errors import (
    ErrorBody,
    InternalError,
    InvalidInput,
    NotFound,
    Overloaded,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
    error_from_body,
)

Body = TypeVar("Body", bound=BaseModel)

_BY_STATUS: dict[int, type[ServiceError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    413: TooLarge,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
"""What a status means when the body is not ours: a proxy or another server answered."""


@dataclass(frozen=True)
class Retries:
    """When and how often a request is sent again: the server is overloaded, not ready, or cannot be reached.

    Attributes:
        attempts: in all, the first included.
        first_delay_s: most seconds before the second attempt; doubles with each one.
        longest_delay_s: most seconds that a delay grows to.
        longest_wait_s: most seconds of a Retry-After header that are honoured.
    """

    attempts: int = 6
    first_delay_s: float = 0.25
    longest_delay_s: float = 8.0
    longest_wait_s: float = 30.0

    def delay(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after a failed attempt, drawn so that clients spread. Args: attempt, 0 for the first."""
        ceiling = min(self.longest_delay_s, self.first_delay_s * 2**attempt)
        drawn = random.uniform(ceiling / 2, ceiling)
        return max(drawn, min(retry_after or 0.0, self.longest_wait_s))


NO_RETRIES = Retries(attempts=1)


class ServiceClient:
    """Requests to one service. Use as a context manager, or close it."""

    service = "service"
    stranger = "this is not one of our services' errors: check the URL and what stands before it"
    """What a message says of an error answer that is not in our services' form."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 600.0,
        connect_timeout_s: float = 5.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Opens nothing yet.

        Args:
            url: of the service, such as `http://127.0.0.1:8001`.
            api_key: sent as `Authorization: Bearer KEY`.
            timeout_s: seconds an answer may take.
            connect_timeout_s: seconds a connection may take.
            retries: when to send again.
            transport: in place of the network.
            sleep: waits between attempts.
        """
        self.url = url.rstrip("/")
        self._retries, self._sleep, self._transport = retries or Retries(), sleep, transport
        self._http = httpx.Client(
            base_url=self.url,
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeout_s, connect=connect_timeout_s),
            transport=transport,
            # Services talk to each other directly: a proxy of the user's shell must not see the key.
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the service can do its work now."""
        try:
            self.send("GET", "/ready", retries=NO_RETRIES, timeout_s=5.0)
        except (Unavailable, Overloaded):
            return False
        return True

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str | int | float | None] | None = None,
        headers: Mapping[str, str] | None = None,
        retries: Retries | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """Sends a request that may be repeated, and returns the answer once its status says success.

        Args:
            method: GET, POST, ...
            path: under the service's URL.
            json: the body.
            params: of the query.
            headers: beyond the key.
            retries: in place of the client's own.
            timeout_s: in place of the client's own.

        Raises:
            ServiceError: the server's own error, by its type; Unavailable when it cannot be reached in time.
        """
        plan = retries or self._retries
        timeout = self._http.timeout if timeout_s is None else httpx.Timeout(timeout_s)
        query = None if params is None else {k: v for k, v in params.items() if v is not None}
        for attempt in range(plan.attempts):
            try:
                return self._send_once(
                    self._http.build_request(method, path, json=json, params=query, headers=headers, timeout=timeout)
                )
            except (Overloaded, Unavailable) as error:
                if attempt + 1 >= plan.attempts or isinstance(error, AnswerTimeout):
                    raise
                self._sleep(plan.delay(attempt, error.retry_after))
        raise AssertionError("attempts is at least 1")

    def fetch(self, kind: type[Body], method: str, path: str, **options: Any) -> Body:
        """Like `send`; returns the answer's body as a message.

        Raises:
            InternalError: the answer is not that message; says what differs.
        """
        answer = self.send(method, path, **options)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise InternalError(
                f"{self.service} at {self.url}{path} answered something else than {kind.__name__}: {error}; "
                "client and service are of different versions, or the URL is another service's"
            ) from error

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """An answer read while it arrives; not retried. Args as of `httpx.Client.stream`."""
        try:
            with self._http.stream(method, path, **options) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._error(answer)
                yield answer
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @asynccontextmanager
    async def stream_async(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        """Like `stream`, in an event loop. The connection serves this answer alone: leaving closes it, read or not."""
        transport = self._transport if isinstance(self._transport, httpx.AsyncBaseTransport) else None
        try:
            async with (
                httpx.AsyncClient(
                    base_url=self.url,
                    headers=self._http.headers,
                    timeout=self._http.timeout,
                    transport=transport,
                    trust_env=False,
                ) as http,
                http.stream(method, path, **options) as answer,
            ):
                if not answer.is_success:
                    await answer.aread()
                    raise self._error(answer)
                yield answer
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _send_once(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = self._http.send(request)
        except httpx.ReadTimeout as error:
            seconds = request.extensions["timeout"]["read"]
            raise AnswerTimeout(
                f"{self.service} at {self.url} did not answer {request.method} {request.url.path} within {seconds:g} "
                "s; ask for less at once, or allow more time"
            ) from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise self._error(answer)
        return answer

    def _unreachable(self, error: httpx.TransportError) -> Unavailable:
        reason = str(error) or type(error).__name__
        return Unavailable(f"{self.service} cannot be reached at {self.url} ({reason}); is it running?")

    def _error(self, answer: httpx.Response) -> ServiceError:
        retry_after = retry_after_of(answer)
        try:
            return error_from_body(ErrorBody.model_validate_json(answer.content), retry_after=retry_after)
        except ValidationError:
            kind = _BY_STATUS.get(answer.status_code) or (InvalidInput if answer.status_code < 500 else InternalError)
            shown = answer.text[:200].strip() or "an empty body"
            return kind(
                f"{self.service} at {answer.request.url} answered {answer.status_code} with {shown!r}; {self.stranger}",
                retry_after=retry_after,
            )


def retry_after_of(answer: httpx.Response) -> float | None:
    """Seconds of the header Retry-After; None without it, and for a date, which nothing that we talk to sends."""
    given = answer.headers.get("retry-after", "")
    return float(given) if given.replace(".", "", 1).isdigit() else None


class AnswerTimeout(Unavailable):
    """The server took the request and did not answer in time (503). Not sent again: it may still be working on it."""
