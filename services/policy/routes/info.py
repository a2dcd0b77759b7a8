"""`GET /info` and `GET /adapters`: what is served, and within which limits."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request
from pydantic import Field

from rlhf.contracts.base import ArtifactRef, Contract
from rlhf.contracts.tgi import MAX_BEST_OF, MAX_STOP_SEQUENCES
from services.policy.backends.base import Backend

router = APIRouter(tags=["model"])


class PolicyInfo(Contract):
    """`GET /info`. Names as in TGI where it has the same."""

    model_id: str
    model_type: str = Field(description="family of the architecture")
    model_dtype: str
    device: str
    version: str = Field(description="of this service")
    max_total_tokens: int = Field(description="prompt and response together")
    max_input_tokens: int
    max_batch_rows: int = Field(description="responses generated together")
    max_request_rows: int = Field(description="prompts × n of one request")
    max_queue: int = Field(description="waiting requests")
    max_concurrent_requests: int = Field(description="TGI's name: responses generated together and requests that wait")
    max_client_batch_size: int = Field(description="TGI's name of max_request_rows")
    max_best_of: int
    max_stop_sequences: int
    validation_workers: int = Field(1, description="TGI's; there is nothing to choose here")
    router: str = "rlhf-services policy"


class LoadedAdapters(Contract):
    """`GET /adapters`. Others are loaded from the artifact store on first use."""

    adapters: list[ArtifactRef] = Field(description="in memory, the one used last at the end")
    max_mib: int = Field(description="merged weights of all of them together")


def service_version() -> str:
    """Of the package that is installed."""
    try:
        return version("rlhf-services")
    except PackageNotFoundError:
        return "source tree, not installed"


@router.get("/info")
async def info(request: Request) -> PolicyInfo:
    """The model and the limits of requests."""
    engine: Backend = request.app.state.runtime.worker()
    return PolicyInfo(
        model_id=engine.base.name,
        model_type=engine.facts.model_type,
        model_dtype=engine.facts.dtype,
        device=engine.facts.device,
        version=service_version(),
        max_total_tokens=engine.base.max_positions,
        max_input_tokens=engine.base.max_positions - 1,
        max_batch_rows=engine.limits.max_batch_rows,
        max_request_rows=engine.limits.max_request_rows,
        max_queue=engine.limits.max_queue,
        max_concurrent_requests=engine.limits.max_batch_rows + engine.limits.max_queue,
        max_client_batch_size=engine.limits.max_request_rows,
        max_best_of=MAX_BEST_OF,
        max_stop_sequences=MAX_STOP_SEQUENCES,
    )


@router.get("/adapters")
async def adapters(request: Request) -> LoadedAdapters:
    """Adapters in memory."""
    engine = request.app.state.runtime.worker()
    return LoadedAdapters(adapters=engine.adapters, max_mib=request.app.state.settings.adapter_memory_mib)
