"""`POST /reward` and `GET /models`, the native dialect."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Request
from pydantic import Field

from rlhf.contracts.base import ArtifactRef, Contract
from rlhf.contracts.errors import InvalidInput, TooLarge
from rlhf.contracts.reward import (
    Aggregation,
    RewardRequest,
    RewardResponse,
    RewardTimings,
    SampleFailure,
    SampleScore,
)
from services.reward.aggregation import aggregate
from services.reward.instruments import SAMPLES, UNCERTAINTY
from services.reward.scorer import Outcome

router = APIRouter(tags=["reward"])


class LoadedModels(Contract):
    """`GET /models`. Others are loaded from the artifact store on first use."""

    backbone: str
    models: list[ArtifactRef] = Field(description="in memory, the one used last at the end")
    default: ArtifactRef | None = Field(description="scored when a request names none")


@router.post("/reward")
async def score(body: RewardRequest, request: Request) -> RewardResponse:
    """Scores samples by an ensemble: every member, their mean, their uncertainty, and the aggregated reward.

    A sample that cannot be scored gets an error in its place, never a score.
    """
    settings = request.app.state.settings
    model = body.model or settings.reward_model
    if model is None:
        raise InvalidInput(
            "the request names no reward model and the server has no default; send `model`: `job@version`"
        )
    if len(body.samples) > settings.max_request_samples:
        raise TooLarge(
            f"{len(body.samples)} samples exceed the {settings.max_request_samples} of one request; send fewer"
        )
    if not body.samples:
        return RewardResponse(model=model, results=[], timings=RewardTimings(queue_s=0.0, inference_s=0.0))
    job = request.app.state.runtime.worker().submit(model, body.samples)
    outcomes = await asyncio.wrap_future(job.outcomes)
    aggregation = body.aggregation or Aggregation()
    results = [_result(outcome, aggregation) for outcome in outcomes]
    timings = RewardTimings(queue_s=job.started_at - job.queued_at, inference_s=time.monotonic() - job.started_at)
    return RewardResponse(model=model, results=results, timings=timings)


@router.get("/models")
async def models(request: Request) -> LoadedModels:
    """Reward models in memory."""
    scorer = request.app.state.runtime.worker()
    return LoadedModels(
        backbone=scorer.base.name, models=scorer.models, default=request.app.state.settings.reward_model
    )


def _result(outcome: Outcome, aggregation: Aggregation) -> SampleScore | SampleFailure:
    if isinstance(outcome, SampleFailure):
        SAMPLES.labels("failed").inc()
        return outcome
    total = aggregate(outcome.members, aggregation)
    SAMPLES.labels("scored").inc()
    UNCERTAINTY.observe(total.uncertainty)
    return SampleScore(
        reward=total.reward,
        score=total.score,
        uncertainty=total.uncertainty,
        members=outcome.members,
        truncated=outcome.truncated,
    )
