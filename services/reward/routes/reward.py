"""`POST /reward` and `GET /models`, the native dialect."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field

from rlhf.contracts.base import ArtifactRef, Contract
from rlhf.contracts.reward import PREFERENCE_ALONE, Aggregation, RewardRequest, RewardResponse
from services.reward.routes.scoring import score_samples

router = APIRouter(tags=["reward"])


class LoadedModels(Contract):
    """`GET /models`. Others are loaded from the artifact store on first use."""

    backbone: str
    models: list[ArtifactRef] = Field(description="in memory, the one used last at the end")
    default: ArtifactRef | None = Field(description="scored when a request names none")


@router.post("/reward")
async def score(body: RewardRequest, request: Request) -> RewardResponse:
    """Scores samples by an ensemble: every member, their mean, their uncertainty; the reward is of all objectives.

    A sample that cannot be scored gets an error in its place, never a score.
    """
    aggregation, objectives = body.aggregation or Aggregation(), body.objectives or PREFERENCE_ALONE
    scored = await score_samples(request, body.model, body.samples, aggregation, objectives)
    return RewardResponse(model=scored.model, results=scored.results, timings=scored.timings)


@router.get("/models")
async def models(request: Request) -> LoadedModels:
    """Reward models in memory."""
    scorer = request.app.state.runtime.worker()
    return LoadedModels(
        backbone=scorer.base.name, models=scorer.models, default=request.app.state.settings.reward_model
    )
