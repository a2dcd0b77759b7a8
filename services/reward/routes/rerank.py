"""`POST /rerank`: vLLM's body and TEI's, told apart by their shape."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request
from pydantic import Tag

from rlhf.contracts.scoring import (
    TeiRank,
    TeiRerankRequest,
    VllmDocument,
    VllmRank,
    VllmRerankRequest,
    VllmRerankResponse,
    VllmRerankUsage,
)
from rlhf.serving.dialects import by_field
from rlhf.serving.logs import request_id
from services.reward.routes.scoring import ERRORS, Rewards, reward_all, text_reader
from services.reward.routes.vllm import listed

router = APIRouter(tags=["vllm", "tei"])

AnyRequest = Annotated[
    Annotated[VllmRerankRequest, Tag("vllm")] | Annotated[TeiRerankRequest, Tag("tei")],
    by_field({"documents": "vllm", "texts": "tei"}, "`query` and `documents` (vLLM) or `texts` (TEI)"),
]


@router.post("/rerank", responses=ERRORS)
async def rerank(request: Request, body: Annotated[AnyRequest, Body()]) -> VllmRerankResponse | list[TeiRank]:
    """Responses to one prompt, the highest reward first. `documents` get vLLM's answer, `texts` TEI's."""
    if isinstance(body, VllmRerankRequest):
        return await rerank_documents(request, body)
    rewards = await _reward(request, body.model, body.query, body.texts)
    return [
        TeiRank(index=index, text=body.texts[index] if body.return_text else None, score=rewards.values[index])
        for index in _order(rewards)
    ]


@router.post("/v1/rerank", responses=ERRORS)
async def rerank_documents(request: Request, body: VllmRerankRequest) -> VllmRerankResponse:
    """As /rerank with `documents`."""
    documents = listed(body.documents)
    rewards = await _reward(request, body.model, body.query, documents)
    results = [
        VllmRank(index=index, document=VllmDocument(text=documents[index]), relevance_score=rewards.values[index])
        for index in _order(rewards)
    ]
    return VllmRerankResponse(
        id=f"rerank-{request_id.get()}",
        model=rewards.model,
        usage=VllmRerankUsage(prompt_tokens=rewards.tokens, total_tokens=rewards.tokens),
        results=results[: body.top_n] if body.top_n > 0 else results,
    )


async def _reward(request: Request, name: str | None, prompt: str, responses: list[str]) -> Rewards:
    reader = text_reader(request)
    return await reward_all(request, name, [reader.pair(prompt, response) for response in responses])


def _order(rewards: Rewards) -> list[int]:
    return sorted(range(len(rewards.scores)), key=lambda index: -rewards.scores[index].reward)
