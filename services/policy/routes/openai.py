"""OpenAI's routes: `/v1/completions`, `/v1/chat/completions`, `/v1/models`."""

from __future__ import annotations

import re
import time
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from rlhf.contracts.base import ADAPTER_REF_PATTERN
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.openai import (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    ModelCard,
    ModelList,
    OpenAiSampling,
)
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.chat import encode_prompt
from rlhf.lm.loading import TextModel
from rlhf.serving.service import describe_validation
from services.policy.backends.base import Backend
from services.policy.engine.requests import EngineRequest, Notify, no_news
from services.policy.engine.rows import Extras
from services.policy.routes.adapters import named_adapter
from services.policy.routes.encoding import encode_inputs
from services.policy.routes.openai_answers import ChatFeed, CompletionFeed, chat_answer, completion_answer
from services.policy.routes.sse import stream
from services.policy.routes.waiting import ERRORS, check_text, generate_all, generate_some

router = APIRouter(prefix="/v1", tags=["openai"])
STARTED = int(time.time())
MAX_PROMPTS = 1024
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
    engine: Backend = request.app.state.runtime.worker()
    base = ModelCard(id=engine.base.name, created=STARTED)
    adapters = [ModelCard(id=ref, created=STARTED, parent=base.id) for ref in engine.adapters]
    return ModelList(data=[base, *adapters])


@router.post("/completions", responses=ERRORS, response_model=Completion)
async def complete(request: Request, body: Annotated[CompletionRequest, Body()]) -> Completion | Response:
    """Continues raw text."""
    engine: Backend = request.app.state.runtime.worker()
    if body.stream:
        followed = await generate_some(request, lambda notify: submit_completion(request, engine, body, notify))
        return stream(request, followed, CompletionFeed(engine.base, body, followed.queued), last="[DONE]")
    queued = await generate_all(request, lambda: submit_completion(request, engine, body))
    return await run_in_threadpool(completion_answer, engine.base, body, queued)


@router.post("/chat/completions", responses=ERRORS, response_model=ChatCompletion)
async def chat(request: Request, body: Annotated[ChatRequest, Body()]) -> ChatCompletion | Response:
    """Answers a conversation."""
    engine: Backend = request.app.state.runtime.worker()
    if body.stream:
        followed = await generate_some(request, lambda notify: submit_chat(request, engine, body, notify))
        return stream(request, followed, ChatFeed(engine.base, body, followed.queued), last="[DONE]")
    queued = await generate_all(request, lambda: submit_chat(request, engine, body))
    return await run_in_threadpool(chat_answer, engine.base, body, queued)


def submit_completion(
    request: Request, engine: Backend, body: CompletionRequest, notify: Notify = no_news
) -> EngineRequest:
    """Queues a completion. Raises what `Backend.submit` raises."""
    ids = [_encode(engine.base, index, prompt) for index, prompt in enumerate(prompts_of(body))]
    extras = Extras(top_logprobs=body.logprobs or 0)
    return _submit(request, engine, body, ids, body.max_tokens or COMPLETION_TOKENS, extras, notify)


def prompts_of(body: CompletionRequest) -> list[str | list[int]]:
    """One or several prompts, each a text or token ids. Raises InvalidInput when there are none, or too many."""
    given = body.prompt
    single = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    prompts: list[str | list[int]] = [given] if single else list(given)  # type: ignore[list-item, arg-type]
    if not 0 < len(prompts) <= MAX_PROMPTS:
        raise InvalidInput(f"prompt has {len(prompts)} prompts; send 1 to {MAX_PROMPTS}")
    return prompts


def _encode(base: TextModel, index: int, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        check_text(f"prompt {index}", prompt)
        return encode_inputs(base, prompt, None)
    wrong = next((token for token in prompt if not 0 <= token < len(base.tokenizer)), None)
    if wrong is not None:
        raise InvalidInput(f"prompt {index} has the token id {wrong}; this model's are 0 to {len(base.tokenizer) - 1}")
    return prompt


def submit_chat(request: Request, engine: Backend, body: ChatRequest, notify: Notify = no_news) -> EngineRequest:
    """Queues a conversation. Raises what `Backend.submit` raises."""
    messages = [message.plain() for message in body.messages]
    for index, message in enumerate(messages):
        check_text(f"messages.{index}.content", message.content)
    if None not in (body.max_tokens, body.max_completion_tokens):
        raise InvalidInput("max_tokens and max_completion_tokens are two names of one limit; send one of them")
    ids = encode_prompt(engine.base.tokenizer, messages)
    default = max(1, min(CHAT_TOKENS, engine.base.max_positions - len(ids)))
    if body.top_logprobs and not body.logprobs:
        raise InvalidInput(f"top_logprobs={body.top_logprobs} needs logprobs=true; send both, or neither")
    extras = Extras(top_logprobs=body.top_logprobs or 0)
    tokens = body.max_completion_tokens or body.max_tokens or default
    return _submit(request, engine, body, [ids], tokens, extras, notify)


def _submit(
    request: Request,
    engine: Backend,
    body: OpenAiSampling,
    prompts: list[list[int]],
    tokens: int,
    extras: Extras,
    notify: Notify,
) -> EngineRequest:
    if body.stream_options is not None and not body.stream:
        raise InvalidInput("stream_options needs stream=true; send both, or neither")
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    for text in stop:
        check_text("stop", text)
    shared = {name: getattr(body, name) for name in SHARED}
    try:
        sampling = SamplingParams(max_new_tokens=tokens, min_new_tokens=body.min_tokens, stop=stop, **shared)
    except ValidationError as error:
        raise InvalidInput(describe_validation(list(error.errors()))) from error  # type: ignore[arg-type]
    adapter = body.model if body.model and re.fullmatch(ADAPTER_REF_PATTERN, body.model) else None
    return engine.submit(prompts, sampling, named_adapter(request, adapter), extras, notify)
