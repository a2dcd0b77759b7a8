"""The policy service as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from rlhf.serving.service import create_service
from services.policy.routes import generate, info
from services.policy.runtime import Runtime
from services.policy.settings import PolicySettings


def create_app(settings: PolicySettings) -> FastAPI:
    """Builds the service; its lifespan loads the model in the background. `app.state.runtime` owns it."""
    runtime = Runtime(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime.start()
        yield
        runtime.stop()

    async def ready(app: FastAPI) -> str | None:
        return runtime.obstacle()

    app = create_service("policy", settings, [generate.router, info.router], lifespan=lifespan, ready=ready)
    app.state.runtime = runtime
    return app
