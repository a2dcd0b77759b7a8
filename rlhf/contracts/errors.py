"""The errors of every service, as exception classes that carry their HTTP status, and the one body they become.

A message states what was wrong, the value seen and the cure.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

ErrorType = Literal[
    "validation",
    "not_found",
    "conflict",
    "overloaded",
    "generation",
    "scoring",
    "unavailable",
    "unauthorized",
    "too_large",
    "internal",
]


class ErrorBody(BaseModel):
    """The one shape of every error answer."""

    error: str
    error_type: ErrorType
    request_id: str | None = None


class ServiceError(Exception):
    """Base of all errors that a service answers with; subclasses fix status and type."""

    status: int = 500
    error_type: ErrorType = "internal"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Args: message, what was wrong, the value seen, the cure; retry_after, seconds, sent as a header."""
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidInput(ServiceError):
    """The request is well-formed HTTP but asks for something impossible (422)."""

    status = 422
    error_type = "validation"


class Unauthorized(ServiceError):
    """The API key is missing or wrong (401)."""

    status = 401
    error_type = "unauthorized"


class NotFound(ServiceError):
    """The named thing does not exist (404)."""

    status = 404
    error_type = "not_found"


class Conflict(ServiceError):
    """The thing exists but cannot be used or changed so: corrupt artifact, wrong job state (409)."""

    status = 409
    error_type = "conflict"


class TooLarge(ServiceError):
    """The body or batch is over the service's limit (413)."""

    status = 413
    error_type = "too_large"


class GenerationFailed(ServiceError):
    """The engine could not produce text for a valid request (424)."""

    status = 424
    error_type = "generation"


class ScoringFailed(ServiceError):
    """A sample could not be scored (424); never answered as a score of 0."""

    status = 424
    error_type = "scoring"


class Overloaded(ServiceError):
    """The queue is full (429); carries retry_after."""

    status = 429
    error_type = "overloaded"


class Unavailable(ServiceError):
    """The service is not ready, draining, or cannot be reached (503)."""

    status = 503
    error_type = "unavailable"


class InternalError(ServiceError):
    """A bug of ours (500)."""


_BY_TYPE: dict[str, type[ServiceError]] = {
    cls.error_type: cls
    for cls in (
        InvalidInput,
        Unauthorized,
        NotFound,
        Conflict,
        TooLarge,
        GenerationFailed,
        ScoringFailed,
        Overloaded,
        Unavailable,
        InternalError,
    )
}


def error_from_body(body: ErrorBody, *, retry_after: float | None = None) -> ServiceError:
    """The exception that an error answer stands for, so that clients raise what the server raised."""
    return _BY_TYPE[body.error_type](body.error, retry_after=retry_after)
