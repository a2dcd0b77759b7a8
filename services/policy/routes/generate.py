"""`POST /generate`: the native and the TGI body, told apart by their shape."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Tag

from rlhf.contracts.base import prompt_messages
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.policy import (
    GenerateRequest,
    GenerateResponse,
    GenerateTimings,
    Generation,
    TopToken,
)
from rlhf.contracts.tgi import TgiRequest, TgiResponse
from rlhf.lm.chat import encode_prompt
from rlhf.lm.loading import TextModel
from rlhf.serving.dialects import by_field
from services.policy.backends.base import Backend
from services.policy.engine.requests import EngineRequest
from services.policy.engine.rows import Extras, Row
from services.policy.engine.stops import response_text
from services.policy.routes.adapters import named_adapter
from services.policy.routes.tgi import answer_whole
from services.policy.routes.waiting import ERRORS, check_text, generate_all

router = APIRouter(tags=["generate"])


AnyRequest = Annotated[
    Annotated[GenerateRequest, Tag("native")] | Annotated[TgiRequest, Tag("tgi")],
    by_field({"prompts": "native", "inputs": "tgi"}, "`prompts` (native) or `inputs` (TGI)"),
]


@router.post("/generate", responses=ERRORS)
async def generate(
    request: Request, response: Response, body: Annotated[AnyRequest, Body()]
) -> GenerateResponse | TgiResponse:
    """Samples responses. A body with `prompts` gets the native answer, one with `inputs` TGI's."""
    if isinstance(body, TgiRequest):
        if body.stream:
            raise InvalidInput("stream=true: this route answers whole; send it to /generate_stream or to /")
        return await answer_whole(request, response, body)
    engine: Backend = request.app.state.runtime.worker()
    queued = await generate_all(request, lambda: submit_native(engine, body, named_adapter(request, body.adapter)))
    return await run_in_threadpool(native_answer, engine.base, body, queued)


def submit_native(engine: Backend, body: GenerateRequest, adapter: str | None) -> EngineRequest:
    """Queues a native request. Args: adapter, the body's by its version. Raises what `Backend.submit` raises."""
    for index, prompt in enumerate(body.prompts):
        for message in prompt_messages(prompt):
            check_text(f"prompt {index}", message.content)
    for stop in body.sampling.stop:
        check_text("sampling.stop", stop)
    prompts = [encode_prompt(engine.base.tokenizer, prompt) for prompt in body.prompts]
    extras = Extras(model_logprobs=body.returns.logprobs, top_logprobs=body.returns.top_logprobs)
    return engine.submit(prompts, body.sampling, adapter, extras)


def native_answer(base: TextModel, body: GenerateRequest, done: EngineRequest) -> GenerateResponse:
    """The native answer of a finished request."""
    outcome = done.outcome.result()
    return GenerateResponse(
        model=base.name,
        adapter=done.adapter,
        policy_version=0 if done.adapter is None else int(done.adapter.partition("@")[2]),
        results=[_generation(base, body, row, done.seed) for row in outcome.rows],
        timings=GenerateTimings(queue_s=outcome.queue_s, inference_s=outcome.inference_s),
    )


def _generation(base: TextModel, body: GenerateRequest, row: Row, seed: int) -> Generation:
    returns = body.returns
    return Generation(
        prompt_index=row.prompt_index,
        sample_index=row.sample_index,
        text=response_text(base.tokenizer, row.token_ids, row.sampling.stop),
        finish_reason=row.ended_by,
        generated_tokens=len(row.token_ids),
        token_ids=row.token_ids if returns.token_ids else None,
        behavior_logprobs=row.behavior_logprobs if returns.logprobs else None,
        model_logprobs=(row.model_logprobs or None) if returns.logprobs else None,
        top_logprobs=[_top(top) for top in row.top_logprobs] if returns.top_logprobs else None,
        prompt_token_ids=row.prompt_ids if returns.prompt_token_ids else None,
        seed=seed,
    )


def _top(tokens: list[tuple[int, float]]) -> list[TopToken]:
    """Without those that filters ban."""
    return [TopToken(id=token, logprob=logprob) for token, logprob in tokens if math.isfinite(logprob)]
