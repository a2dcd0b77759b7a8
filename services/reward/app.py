"""The reward service as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from rlhf.serving.service import create_service
from services.reward.routes import reward
from services.reward.runtime import Runtime
from services.reward.settings import RewardSettings


def create_app(settings: RewardSettings) -> FastAPI:
    """Builds the service; its lifespan loads the backbone in the background. `app.state.runtime` owns it."""
    runtime = Runtime(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime.start()
        yield
        runtime.stop()

    async def ready(app: FastAPI) -> str | None:
        return runtime.obstacle()

    app = create_service("reward", settings, [reward.router], lifespan=lifespan, ready=ready)
    app.state.runtime = runtime
    return app
