"""vLLM's routes for models that score: `/classify`, `/pooling`, `/score`."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.openai import Usage
from rlhf.contracts.scoring import (
    VllmClass,
    VllmClassifyRequest,
    VllmClassifyResponse,
    VllmPairScore,
    VllmPooled,
    VllmPoolingRequest,
    VllmPoolingResponse,
    VllmScoreRequest,
    VllmScoreResponse,
)
from rlhf.serving.logs import request_id
from services.reward.routes.scoring import ERRORS, Rewards, reward_all, text_reader
from services.reward.texts import Sample, TextReader, conversation

router = APIRouter(tags=["vllm"])


@router.post("/classify", responses=ERRORS)
async def classify(body: VllmClassifyRequest, request: Request) -> VllmClassifyResponse:
    """The reward of each conversation, as the only class of a classifier."""
    rewards = await reward_all(request, body.model, conversations_of(body, text_reader(request)))
    data = [VllmClass(index=index, probs=[value]) for index, value in enumerate(rewards.values)]
    return VllmClassifyResponse(data=data, **envelope("classify", rewards))


@router.post("/pooling", responses=ERRORS)
async def pool(body: VllmPoolingRequest, request: Request) -> VllmPoolingResponse:
    """The reward of each conversation, as a vector of one number."""
    rewards = await reward_all(request, body.model, conversations_of(body, text_reader(request)))
    data = [VllmPooled(index=index, data=[value]) for index, value in enumerate(rewards.values)]
    return VllmPoolingResponse(data=data, **envelope("pool", rewards))


@router.post("/score", responses=ERRORS)
@router.post("/v1/score", responses=ERRORS)
async def score(body: VllmScoreRequest, request: Request) -> VllmScoreResponse:
    """The reward of each response, `text_2`, to its prompt, `text_1`."""
    rewards = await reward_all(request, body.model, pairs_of(body, text_reader(request)))
    data = [VllmPairScore(index=index, score=value) for index, value in enumerate(rewards.values)]
    return VllmScoreResponse(data=data, **envelope("score", rewards))


def conversations_of(body: VllmClassifyRequest, reader: TextReader) -> list[Sample]:
    """The samples of /classify and /pooling. Raises InvalidInput when there are none."""
    if isinstance(body.input, str):
        return [reader.whole("input", body.input)]
    if body.input is not None:
        return [reader.whole(f"input.{index}", text) for index, text in enumerate(body.input)]
    if body.messages is not None:
        return [conversation([turn.plain() for turn in body.messages])]
    raise InvalidInput("the body has neither `input` nor `messages`; send texts, or one conversation")


def pairs_of(body: VllmScoreRequest, reader: TextReader) -> list[Sample]:
    """The samples of /score. Raises InvalidInput when prompts and responses cannot be paired."""
    prompts, responses = listed(body.text_1), listed(body.text_2)
    if len(prompts) == 1:
        prompts = prompts * len(responses)
    if len(prompts) != len(responses):
        raise InvalidInput(
            f"text_1 has {len(prompts)} texts and text_2 {len(responses)}; send one and any number, or as many of both"
        )
    return [reader.pair(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


def listed(texts: str | list[str]) -> list[str]:
    """One text is a list of one."""
    return [texts] if isinstance(texts, str) else texts


def envelope(prefix: str, rewards: Rewards) -> dict[str, Any]:
    """The fields of `VllmEnvelope`. Args: prefix, of the id; rewards, what is answered."""
    return {
        "id": f"{prefix}-{request_id.get()}",
        "created": int(time.time()),
        "model": rewards.model,
        "usage": Usage(prompt_tokens=rewards.tokens, completion_tokens=0, total_tokens=rewards.tokens),
    }
