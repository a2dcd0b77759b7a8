"""The reward service as an ASGI application."""

from __future__ import annotations

from fastapi import FastAPI

from rlhf.serving.runtime import Runtime
from rlhf.serving.service import create_model_service
from services.reward.default import DefaultModel
from services.reward.loading import load_scorer
from services.reward.routes import openrlhf, rerank, reward, tei, vllm
from services.reward.settings import RewardSettings


def create_app(settings: RewardSettings) -> FastAPI:
    """Builds the service; its lifespan loads the backbone in the background."""
    runtime = Runtime("reward", settings.model, lambda: load_scorer(settings), drain_seconds=settings.drain_seconds)
    routers = [dialect.router for dialect in (reward, openrlhf, vllm, tei, rerank)]
    app = create_model_service("reward", settings, routers, runtime)
    app.state.default = DefaultModel(settings.reward_model)
    return app
