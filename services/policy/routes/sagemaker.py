"""What SageMaker asks of a container, as TGI has it: `/ping`, and one route for every dialect."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response
from pydantic import Tag

from rlhf.contracts.errors import ErrorBody
from rlhf.contracts.openai import ChatCompletion, ChatRequest, Completion, CompletionRequest
from rlhf.contracts.tgi import TgiRequest, TgiResponse
from rlhf.serving.dialects import by_field
from services.policy.routes import openai, tgi
from services.policy.routes.waiting import ERRORS

router = APIRouter(tags=["sagemaker"])

Answer = list[TgiResponse] | ChatCompletion | Completion
AnyRequest = Annotated[
    Annotated[TgiRequest, Tag("tgi")]
    | Annotated[ChatRequest, Tag("chat")]
    | Annotated[CompletionRequest, Tag("completion")],
    # In the order in which TGI looks.
    by_field(
        {"inputs": "tgi", "messages": "chat", "prompt": "completion"},
        "`inputs` (as to /), `messages` or `prompt` (as to /v1)",
    ),
]


@router.get("/ping", responses={503: {"model": ErrorBody}})
async def ping(request: Request) -> dict[str, str]:
    """Requests can be sent; 503 with the reason when they cannot. Needs no key."""
    request.app.state.runtime.worker()
    return {"status": "ready"}


@router.post("/invocations", responses=ERRORS, response_model=Answer)
async def invoke(request: Request, response: Response, body: Annotated[AnyRequest, Body()]) -> Answer | Response:
    """Answers as `/` does to `inputs`, `/v1/chat/completions` to `messages`, and `/v1/completions` to `prompt`."""
    if isinstance(body, TgiRequest):
        return await tgi.compatible(request, response, body)
    if isinstance(body, ChatRequest):
        return await openai.chat(request, body)
    return await openai.complete(request, body)
