"""OpenAI's routes: `/v1/completions`, `/v1/chat/completions`, `/v1/models`. Not their streams, which are refused."""

from __future__ import annotations

import re
import time
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from rlhf.contracts.base import ARTIFACT_REF_PATTERN
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.openai import (
    ChatAnswer,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChatToken,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    FinishWord,
    ModelCard,
    ModelList,
    OpenAiSampling,
    Usage,
)
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.chat import encode_prompt
from rlhf.lm.loading import LanguageModel
from rlhf.serving.logs import request_id
from rlhf.serving.service import describe_validation
from services.policy.engine.engine import Engine
from services.policy.engine.requests import EngineRequest
from services.policy.engine.rows import Row
from services.policy.engine.stops import cut_at_stop, decode_text, token_texts
from services.policy.routes.generate import ERRORS
from services.policy.routes.tgi import encode_inputs
from services.policy.routes.waiting import check_text, wait_for_outcome

router = APIRouter(prefix="/v1", tags=["openai"])
STARTED = int(time.time())
COMPLETION_TOKENS = 16
"""OpenAI's default for completions."""
CHAT_TOKENS = 1024
"""Default for chats, or what the model has left: a response ends by EOS, and nobody waits for a runaway one."""
SHARED = (
    *("temperature", "top_p", "n", "seed", "frequency_penalty", "presence_penalty"),
    *("top_k", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size"),
)
"""Settings that have one name here and in our own sampling."""


@router.get("/models")
async def models(request: Request) -> ModelList:
    """The base model and the adapters in memory."""
    engine: Engine = request.app.state.runtime.worker()
    base = ModelCard(id=engine.base.name, created=STARTED)
    adapters = [ModelCard(id=ref, created=STARTED, parent=base.id) for ref in engine.adapters]
    return ModelList(data=[base, *adapters])


@router.post("/completions", responses=ERRORS)
async def complete(request: Request, body: Annotated[CompletionRequest, Body()]) -> Completion:
    """Continues raw text."""
    engine: Engine = request.app.state.runtime.worker()
    queued = await run_in_threadpool(submit_completion, engine, body)
    await wait_for_outcome(request, queued)
    return await run_in_threadpool(completion_answer, engine.base, body, queued)


@router.post("/chat/completions", responses=ERRORS)
async def chat(request: Request, body: Annotated[ChatRequest, Body()]) -> ChatCompletion:
    """Answers a conversation."""
    engine: Engine = request.app.state.runtime.worker()
    queued = await run_in_threadpool(submit_chat, engine, body)
    await wait_for_outcome(request, queued)
    return await run_in_threadpool(chat_answer, engine.base, body, queued)


def submit_completion(engine: Engine, body: CompletionRequest) -> EngineRequest:
    """Queues a completion. Raises what `Engine.submit` raises."""
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    for index, prompt in enumerate(prompts):
        check_text(f"prompt {index}", prompt)
    ids = [encode_inputs(engine.base, prompt, None) for prompt in prompts]
    return _submit(engine, body, ids, body.max_tokens or COMPLETION_TOKENS)


def submit_chat(engine: Engine, body: ChatRequest) -> EngineRequest:
    """Queues a conversation. Raises what `Engine.submit` raises."""
    messages = [message.plain() for message in body.messages]
    for index, message in enumerate(messages):
        check_text(f"messages.{index}.content", message.content)
    if None not in (body.max_tokens, body.max_completion_tokens):
        raise InvalidInput("max_tokens and max_completion_tokens are two names of one limit; send one of them")
    ids = encode_prompt(engine.base.tokenizer, messages)
    default = max(1, min(CHAT_TOKENS, engine.base.max_positions - len(ids)))
    return _submit(engine, body, [ids], body.max_completion_tokens or body.max_tokens or default)


def completion_answer(base: LanguageModel, body: CompletionRequest, done: EngineRequest) -> Completion:
    """OpenAI's completion object of a finished request."""
    choices = [
        CompletionChoice(
            index=index,
            text=_text(base, row),
            finish_reason=_finish(row),
            logprobs=None if body.logprobs is None else _completion_logprobs(base, row),
        )
        for index, row in enumerate(done.outcome.result().rows)
    ]
    return Completion(
        id=f"cmpl-{request_id.get()}",
        created=int(time.time()),
        model=body.model or base.name,
        choices=choices,
        usage=_usage(done.rows),
    )


def chat_answer(base: LanguageModel, body: ChatRequest, done: EngineRequest) -> ChatCompletion:
    """OpenAI's chat completion object of a finished request."""
    choices = [
        ChatChoice(
            index=index,
            message=ChatAnswer(content=_text(base, row)),
            finish_reason=_finish(row),
            logprobs=ChatLogprobs(content=_chat_tokens(base, row)) if body.logprobs else None,
        )
        for index, row in enumerate(done.outcome.result().rows)
    ]
    return ChatCompletion(
        id=f"chatcmpl-{request_id.get()}",
        created=int(time.time()),
        model=body.model or base.name,
        choices=choices,
        usage=_usage(done.rows),
    )


def _submit(engine: Engine, body: OpenAiSampling, prompts: list[list[int]], tokens: int) -> EngineRequest:
    if body.stream:
        raise InvalidInput("stream=true: streaming is not offered yet; send stream=false, or leave it out")
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    for text in stop:
        check_text("stop", text)
    shared = {name: getattr(body, name) for name in SHARED}
    try:
        sampling = SamplingParams(max_new_tokens=tokens, min_new_tokens=body.min_tokens, stop=stop, **shared)
    except ValidationError as error:
        raise InvalidInput(describe_validation(list(error.errors()))) from error  # type: ignore[arg-type]
    adapter = body.model if body.model and re.fullmatch(ARTIFACT_REF_PATTERN, body.model) else None
    return engine.submit(prompts, sampling, adapter)


def _text(base: LanguageModel, row: Row) -> str:
    return cut_at_stop(decode_text(base.tokenizer, row.token_ids), row.sampling.stop)


def _finish(row: Row) -> FinishWord:
    return "length" if row.ended_by == "length" else "stop"


def _usage(rows: list[Row]) -> Usage:
    prompts = sum(len(row.prompt_ids) for row in rows if row.sample_index == 0)
    responses = sum(len(row.token_ids) for row in rows)
    return Usage(prompt_tokens=prompts, completion_tokens=responses, total_tokens=prompts + responses)


def _visible_tokens(base: LanguageModel, row: Row) -> list[tuple[str, float]]:
    """The text that each token adds, and its log-probability as sampled; EOS and other special tokens left out."""
    special = frozenset(base.tokenizer.all_special_ids)
    texts = token_texts(base.tokenizer, row.token_ids)
    rows = zip(row.token_ids, texts, row.behavior_logprobs, strict=True)
    return [(text, logprob) for token, text, logprob in rows if token not in special]


def _completion_logprobs(base: LanguageModel, row: Row) -> CompletionLogprobs:
    tokens = _visible_tokens(base, row)
    offsets, at = [], 0
    for text, _ in tokens:
        offsets.append(at)
        at += len(text)
    return CompletionLogprobs(
        tokens=[text for text, _ in tokens], token_logprobs=[value for _, value in tokens], text_offset=offsets
    )


def _chat_tokens(base: LanguageModel, row: Row) -> list[ChatToken]:
    tokens = _visible_tokens(base, row)
    return [ChatToken(token=text, bytes=list(text.encode()), logprob=logprob) for text, logprob in tokens]
