"""`POST /reward`, and the reward models: which there are, and which is scored when none is named."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from rlhf.contracts.base import ArtifactRef
from rlhf.contracts.errors import ErrorBody
from rlhf.contracts.reward import (
    PREFERENCE_ALONE,
    Aggregation,
    LoadedRewardModel,
    RewardModels,
    RewardRequest,
    RewardResponse,
)
from services.reward.default import DefaultModel
from services.reward.routes.scoring import score_samples
from services.reward.scorer import Scorer

router = APIRouter(tags=["reward"])

LOAD_ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in (401, 404, 409, 422, 503)}


@router.post("/reward")
async def score(body: RewardRequest, request: Request) -> RewardResponse:
    """Scores samples by an ensemble: every member, their mean, their uncertainty; the reward is of all objectives.

    A sample that cannot be scored gets an error in its place, never a score.
    """
    aggregation, objectives = body.aggregation or Aggregation(), body.objectives or PREFERENCE_ALONE
    scored = await score_samples(request, body.model, body.samples, aggregation, objectives)
    return RewardResponse(model=scored.model, results=scored.results, timings=scored.timings)


@router.get("/models")
async def models(request: Request) -> RewardModels:
    """Reward models in memory and in the artifact store, and the default."""
    scorer: Scorer = request.app.state.runtime.worker()
    default: DefaultModel = request.app.state.default
    available = await asyncio.to_thread(scorer.library.available)
    return RewardModels(backbone=scorer.base.name, loaded=scorer.models, default=default.ref, available=available)


@router.post("/models/{name}/load", responses=LOAD_ERRORS)
async def load(name: ArtifactRef, request: Request) -> LoadedRewardModel:
    """Reads and verifies a reward model, and makes it the default; one that fails leaves the old one serving.

    Requests under way are scored by what they were sent to; those that name no model afterwards, by this one.
    """
    default: DefaultModel = request.app.state.default
    replaced = await default.replace(request.app.state.runtime.worker(), name)
    return LoadedRewardModel(default=name, replaced=replaced)
