"""The policy service as an ASGI application."""

from __future__ import annotations

from fastapi import FastAPI

from rlhf.artifacts.store import SERVING_PATIENCE_S, open_store
from rlhf.serving.runtime import Runtime
from rlhf.serving.service import create_model_service
from services.policy.backends.base import Backend
from services.policy.loading import load_backend
from services.policy.routes import generate, info, logprobs, openai, sagemaker, tgi
from services.policy.settings import PolicySettings


def create_app(settings: PolicySettings) -> FastAPI:
    """Builds the service; its lifespan loads the model in the background."""

    def load() -> Backend:
        app.state.store = open_store(settings.store, settings.store_remote, patience_s=SERVING_PATIENCE_S)
        return load_backend(settings, app.state.store)

    runtime = Runtime("policy", settings.model, load, drain_seconds=settings.drain_seconds)
    routers = [route.router for route in (generate, logprobs, tgi, openai, sagemaker, info)]
    app = create_model_service("policy", settings, routers, runtime)
    return app
