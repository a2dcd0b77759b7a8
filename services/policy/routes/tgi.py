"""TGI's routes, apart from `/generate`, which it shares with the native dialect."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response
from fastapi.concurrency import run_in_threadpool

from rlhf.contracts.openai import ChatRequest
from rlhf.contracts.tgi import ChatTokenizeResponse, SimpleToken, TgiParameters, TgiRequest, TgiResponse
from rlhf.lm.chat import render_prompt
from rlhf.lm.loading import TextModel
from services.policy.backends.base import Backend
from services.policy.engine.requests import EngineRequest, Notify, no_news
from services.policy.routes import tgi_answers
from services.policy.routes.adapters import named_adapter
from services.policy.routes.encoding import encode_inputs
from services.policy.routes.sse import stream
from services.policy.routes.waiting import ERRORS, check_text, generate_all, generate_some

router = APIRouter(tags=["tgi"])


@router.post("/", responses=ERRORS, response_model=list[TgiResponse])
async def compatible(
    request: Request, response: Response, body: Annotated[TgiRequest, Body()]
) -> list[TgiResponse] | Response:
    """What Hugging Face's client posts to: a list with one answer, or a stream when `stream` is true."""
    if body.stream:
        return await generate_stream(request, body)
    return [await answer_whole(request, response, body)]


@router.post("/generate_stream", responses=ERRORS, response_class=Response)
async def generate_stream(request: Request, body: Annotated[TgiRequest, Body()]) -> Response:
    """Server-sent events, one a token; the last has the whole text."""
    engine: Backend = request.app.state.runtime.worker()
    given = tgi_answers.read_parameters(body, streamed=True)
    followed = await generate_some(request, lambda notify: _submit(request, engine, body, given, notify))
    return stream(request, followed, tgi_answers.TgiFeed(engine.base, body, given, followed.queued))


@router.post("/tokenize", responses=ERRORS)
async def tokenize(request: Request, body: Annotated[TgiRequest, Body()]) -> list[SimpleToken]:
    """The tokens of `inputs`."""
    engine: Backend = request.app.state.runtime.worker()
    check_text("inputs", body.inputs)
    return await run_in_threadpool(simple_tokens, engine.base, body.inputs, add_special_tokens=True)


@router.post("/chat_tokenize", responses=ERRORS)
async def chat_tokenize(request: Request, body: Annotated[ChatRequest, Body()]) -> ChatTokenizeResponse:
    """A conversation as the chat template writes it, and its tokens."""
    engine: Backend = request.app.state.runtime.worker()
    messages = [message.plain() for message in body.messages]
    for index, message in enumerate(messages):
        check_text(f"messages.{index}.content", message.content)
    text = await run_in_threadpool(render_prompt, engine.base.tokenizer, messages)
    tokens = await run_in_threadpool(simple_tokens, engine.base, text, add_special_tokens=False)
    return ChatTokenizeResponse(templated_text=text, tokenize_response=tokens)


async def answer_whole(request: Request, response: Response, body: TgiRequest) -> TgiResponse:
    """The answer to a request that is not streamed; sets TGI's headers."""
    engine: Backend = request.app.state.runtime.worker()
    given = tgi_answers.read_parameters(body, streamed=False)
    queued = await generate_all(request, lambda: _submit(request, engine, body, given))
    response.headers.update(tgi_answers.timing_headers(body, queued.outcome.result()))
    return await run_in_threadpool(tgi_answers.answer, engine.base, body, given, queued)


def _submit(
    request: Request, engine: Backend, body: TgiRequest, given: TgiParameters, notify: Notify = no_news
) -> EngineRequest:
    for name, text in (("inputs", body.inputs), *(("parameters.stop", stop) for stop in given.stop)):
        check_text(name, text)
    ids = encode_inputs(engine.base, body.inputs, given.truncate)
    sampling, extras = tgi_answers.sampling_of(given), tgi_answers.extras_of(given)
    return engine.submit([ids], sampling, named_adapter(request, given.adapter_id), extras, notify)


def simple_tokens(base: TextModel, text: str, *, add_special_tokens: bool) -> list[SimpleToken]:
    """The tokens of a text, and where in it each stands; special tokens that are added stand nowhere."""
    encoded = base.tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True, verbose=False)
    return [
        SimpleToken(id=token, text=text[start:stop], start=start, stop=stop)
        for token, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
