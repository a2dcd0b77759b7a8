"""The app factory: one way to build an HTTP service, so that errors, auth, limits, health and metrics are the same.

`/health` says that the process answers, `/ready` that it can do its work, `/metrics` is Prometheus text. These three
need no key. Everything else does when one is set.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf.contracts.errors import (
    ErrorBody,
    ErrorType,
    InternalError,
    InvalidInput,
    NotFound,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from rlhf.serving.logs import choose_request_id, request_id
from rlhf.serving.runtime import Runtime
from rlhf.serving.settings import ServiceSettings

log = logging.getLogger(__name__)
OPEN_PATHS = frozenset({"/health", "/ready", "/metrics", "/ping"})
REQUESTS = Counter("rlhf_http_requests_total", "HTTP requests", ["service", "route", "status"])
LATENCY = Histogram(
    "rlhf_http_request_seconds",
    "Seconds from request to answer",
    ["service", "route"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120),
)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_service(
    name: str,
    settings: ServiceSettings,
    routers: list[APIRouter],
    *,
    lifespan: Lifespan,
    ready: Callable[[FastAPI], Awaitable[str | None]],
    for_browsers: bool = False,
) -> FastAPI:
    """Builds a service.

    Args:
        name: shown in metrics, logs and the OpenAPI title.
        settings: address, key and limits.
        routers: the service's own routes.
        lifespan: starts and stops what the service owns; keeps it on `app.state`.
        ready: why the service cannot work yet, or None when it can.
        for_browsers: people use it, by a login of its own: no key in a header is asked for, and there is no `/docs`.
    """
    documents: dict[str, Any] = {"openapi_url": None} if for_browsers else {}
    app = FastAPI(title=f"rlhf-services {name}", lifespan=lifespan, **documents)
    app.state.settings = settings

    @app.get("/health", include_in_schema=True)
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready")
    async def readiness(request: Request) -> dict[str, str]:
        """The service can do its work; 503 with the reason when it cannot."""
        reason = await ready(request.app)
        if reason is not None:
            raise Unavailable(f"{name} is not ready: {reason}", retry_after=1)
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    for router in routers:
        app.include_router(router)
    _handle_errors(app)
    app.add_middleware(Gate, service=name, settings=settings, keyed=not for_browsers)
    return app


def create_model_service(
    name: str, settings: ServiceSettings, routers: list[APIRouter], runtime: Runtime[Any]
) -> FastAPI:
    """Builds a service around a model that loads in the background; `app.state.runtime` owns it.

    Args:
        name: as create_service.
        settings: as create_service.
        routers: as create_service; routes get the worker from `app.state.runtime.worker()`.
        runtime: not started yet; the service is ready when it has no obstacle.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime.start()
        yield
        runtime.stop()

    async def ready(app: FastAPI) -> str | None:
        return runtime.obstacle()

    app = create_service(name, settings, routers, lifespan=lifespan, ready=ready)
    app.state.runtime = runtime
    return app


class Gate:
    """ASGI middleware: gives every request an id, checks key and body size, counts and times it."""

    def __init__(self, app: ASGIApp, service: str, settings: ServiceSettings, *, keyed: bool = True) -> None:
        """Args: app, what to guard; service, its name in metrics; settings, key and limits; keyed, asks for the key."""
        self.app, self.service, self.settings = app, service, settings
        self._key = settings.api_key if keyed else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin1").lower(): v.decode("latin1") for k, v in scope["headers"]}
        token = request_id.set(choose_request_id(headers))
        started, status = time.perf_counter(), 500
        received, over = 0, None

        async def bounded_receive() -> Message:
            nonlocal received, over
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.settings.max_body_bytes:
                over = self._too_large(f"over {self.settings.max_body_bytes}")
                raise over
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", str(request_id.get()).encode())]
            await send(message)

        async def send_unless_over(message: Message) -> None:
            # FastAPI takes every error in reading a body for one in its syntax, and would answer 400.
            if over is None:
                await counted_send(message)

        try:
            self._check(scope["path"], headers)
            await self.app(scope, bounded_receive, send_unless_over)
            if over is not None:
                raise over
        except ServiceError as error:
            await answer_error(error)(scope, receive, counted_send)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            REQUESTS.labels(self.service, route, status).inc()
            LATENCY.labels(self.service, route).observe(time.perf_counter() - started)
            request_id.reset(token)

    def _check(self, path: str, headers: dict[str, str]) -> None:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.settings.max_body_bytes:
            raise self._too_large(length)
        key = self._key
        if key is None or path in OPEN_PATHS:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given.encode("utf-8"), key.get_secret_value().encode("utf-8")
        ):
            seen = "a wrong key" if given else "no key"
            raise Unauthorized(f"the request carries {seen}; send the header `Authorization: Bearer <RLHF_API_KEY>`")

    def _too_large(self, size: str) -> TooLarge:
        limit = self.settings.max_body_bytes
        return TooLarge(f"the body has {size} bytes, the limit is {limit}; send less, or raise RLHF_MAX_BODY_BYTES")


def answer_error(error: ServiceError) -> JSONResponse:
    """The one shape of an error as a response."""
    body = ErrorBody(error=error.message, error_type=error.error_type, request_id=request_id.get())
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return JSONResponse(body.model_dump(), status_code=error.status, headers=headers)


def describe_validation(errors: list[dict[str, object]]) -> str:
    """All of pydantic's errors in one line: where, what, the value seen."""
    parts = []
    for error in errors:
        if error["type"] == "json_invalid":
            # Its place is a character's, not a field's.
            position, reason = error["loc"][-1], error["ctx"]["error"]  # type: ignore[index]
            parts.append(f"the body is no JSON: {reason} at character {position}; send one JSON object")
            continue
        where = ".".join(str(p) for p in error["loc"] if p not in ("body",)) or "body"  # type: ignore[attr-defined]
        if error["type"] == "extra_forbidden":
            parts.append(f"{where}: unknown field; remove it or correct its name")
            continue
        seen = repr(error.get("input"))
        seen = seen if len(seen) <= 120 else seen[:117] + "..."
        parts.append(f"{where}: {error['msg']} (got {seen})")
    return "; ".join(parts)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        if error.status >= 500:
            # Not ready yet and draining are how a service starts and stops, not faults.
            level = logging.INFO if isinstance(error, Unavailable) else logging.ERROR
            log.log(level, "request failed", extra={"error": error.message, "error_type": error.error_type})
        return answer_error(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer_error(InvalidInput(describe_validation(list(error.errors()))))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return answer_error(NotFound(f"no route {request.method} {request.url.path}; see /docs for the routes"))
        kinds: dict[int, ErrorType] = {401: "unauthorized", 403: "unauthorized", 503: "unavailable"}
        body = ErrorBody(
            error=f"{request.method} {request.url.path}: {error.detail}",
            error_type=kinds.get(error.status_code, "validation"),
            request_id=request_id.get(),
        )
        return JSONResponse(body.model_dump(), status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        log.error("unexpected error", exc_info=error)
        return answer_error(
            InternalError(f"unexpected {type(error).__name__}; this is a bug, the log has it under this request_id")
        )
