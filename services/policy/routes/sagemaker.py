"""What SageMaker asks of a container, as TGI has it: `/ping`, and one route for every dialect."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import Discriminator, Tag

from rlhf.contracts.errors import ErrorBody
from rlhf.contracts.openai import ChatCompletion, ChatRequest, Completion, CompletionRequest
from rlhf.contracts.tgi import TgiRequest, TgiResponse
from services.policy.routes import openai, tgi
from services.policy.routes.waiting import ERRORS

router = APIRouter(tags=["sagemaker"])
DIALECTS = {"inputs": "tgi", "messages": "chat", "prompt": "completion"}
"""The field that tells a body's dialect, in the order in which TGI looks."""

Answer = list[TgiResponse] | ChatCompletion | Completion


def tell_dialect(body: Any) -> str | None:
    """`tgi`, `chat` or `completion`, or None for a body that is none of them."""
    fields = body if isinstance(body, dict) else getattr(body, "model_fields_set", ())
    return next((dialect for name, dialect in DIALECTS.items() if name in fields), None)


AnyRequest = Annotated[
    Annotated[TgiRequest, Tag("tgi")]
    | Annotated[ChatRequest, Tag("chat")]
    | Annotated[CompletionRequest, Tag("completion")],
    Discriminator(
        tell_dialect,
        custom_error_type="unknown_dialect",
        custom_error_message="the body is a JSON object with `inputs` (as to /), `messages` or `prompt` (as to /v1)",
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
