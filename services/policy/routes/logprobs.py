"""`POST /logprobs`: how likely the policy finds responses that exist already. Nothing is sampled."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from rlhf.contracts.base import prompt_messages
from rlhf.contracts.errors import InternalError, InvalidInput
from rlhf.contracts.policy import (
    GenerateTimings,
    LogprobSample,
    LogprobsRequest,
    LogprobsResponse,
    ResponseLogprobs,
    SamplingParams,
)
from rlhf.lm.chat import encode_prompt, encode_text
from rlhf.lm.loading import TextModel
from services.policy.backends.base import Backend
from services.policy.engine.requests import EngineRequest
from services.policy.engine.rows import Extras, Row
from services.policy.routes.adapters import named_adapter
from services.policy.routes.waiting import ERRORS, check_text, generate_all

router = APIRouter(tags=["generate"])
ONE_TOKEN = SamplingParams(max_new_tokens=1, temperature=0.0, seed=0)
"""Every backend answers at least one token; it is not told."""


@router.post("/logprobs", responses=ERRORS)
async def logprobs(request: Request, body: Annotated[LogprobsRequest, Body()]) -> LogprobsResponse:
    """The log-probability of every token of given responses, by the plain model at temperature 1."""
    engine: Backend = request.app.state.runtime.worker()
    lengths: list[int] = []
    queued = await generate_all(request, lambda: _submit(engine, body, named_adapter(request, body.adapter), lengths))
    outcome = queued.outcome.result()
    return LogprobsResponse(
        model=engine.base.name,
        adapter=queued.adapter,
        policy_version=0 if queued.adapter is None else int(queued.adapter.partition("@")[2]),
        results=[_told(row, length) for row, length in zip(outcome.rows, lengths, strict=True)],
        timings=GenerateTimings(queue_s=outcome.queue_s, inference_s=outcome.inference_s),
    )


def _submit(engine: Backend, body: LogprobsRequest, adapter: str | None, lengths: list[int]) -> EngineRequest:
    sequences = []
    for index, sample in enumerate(body.samples):
        response = _encode_response(engine.base, index, sample)
        for message in prompt_messages(sample.prompt):
            check_text(f"samples.{index}.prompt", message.content)
        sequences.append(encode_prompt(engine.base.tokenizer, sample.prompt) + response)
        lengths.append(len(response))
    return engine.submit(sequences, ONE_TOKEN, adapter, Extras(prompt_logprobs=True))


def _encode_response(base: TextModel, index: int, sample: LogprobSample) -> list[int]:
    where = f"samples.{index}.response"
    if isinstance(sample.response, str):
        check_text(where, sample.response)
        ids = encode_text(base.tokenizer, sample.response)
        if not ids:
            raise InvalidInput(f"{where} is empty; give at least one token")
        return ids
    wrong = next((token for token in sample.response if token >= len(base.tokenizer)), None)
    if wrong is not None:
        raise InvalidInput(f"{where} has the token id {wrong}; this model's are 0 to {len(base.tokenizer) - 1}")
    return sample.response


def _told(row: Row, length: int) -> ResponseLogprobs:
    if row.prompt_logprobs is None:
        raise InternalError("the backend gave no log-probabilities of the sequence, although they were asked for")
    return ResponseLogprobs(token_ids=row.prompt_ids[-length:], logprobs=row.prompt_logprobs[-length:])
