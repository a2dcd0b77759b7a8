"""The policy service as an ASGI application."""

from __future__ import annotations

from fastapi import FastAPI

from rlhf.serving.runtime import Runtime
from rlhf.serving.service import create_model_service
from services.policy.loading import load_backend
from services.policy.routes import generate, info, logprobs, openai, sagemaker, tgi
from services.policy.settings import PolicySettings


def create_app(settings: PolicySettings) -> FastAPI:
    """Builds the service; its lifespan loads the model in the background."""
    runtime = Runtime("policy", settings.model, lambda: load_backend(settings), drain_seconds=settings.drain_seconds)
    routers = [route.router for route in (generate, logprobs, tgi, openai, sagemaker, info)]
    return create_model_service("policy", settings, routers, runtime)
