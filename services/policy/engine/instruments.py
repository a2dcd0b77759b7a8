"""What the policy service measures, as Prometheus series. Names are TGI's where it has the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from services.policy.engine.requests import EngineRequest

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
STEP_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
TOKEN_COUNTS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

REQUESTS = Counter("tgi_request_count", "Requests queued")
SUCCESS = Counter("tgi_request_success", "Requests answered with text")
FAILURE = Counter("tgi_request_failure", "Requests that failed after they were queued", ["err"])
QUEUE = Gauge("tgi_queue_size", "Requests that wait for the engine")
BATCH_ROWS = Gauge("tgi_batch_current_size", "Responses being generated")
BATCH_TOKENS = Gauge("tgi_batch_current_max_tokens", "Tokens reserved for them: rows × (longest prompt + new tokens)")
INPUT_TOKENS = Histogram("tgi_request_input_length", "Prompt tokens of a response", buckets=TOKEN_COUNTS)
GENERATED_TOKENS = Histogram("tgi_request_generated_tokens", "Tokens of a response", buckets=TOKEN_COUNTS)
QUEUE_SECONDS = Histogram("tgi_request_queue_duration", "Seconds from arrival to the first prompt", buckets=SECONDS)
INFERENCE_SECONDS = Histogram("tgi_request_inference_duration", "Seconds from there to the answer", buckets=SECONDS)
REQUEST_SECONDS = Histogram("tgi_request_duration", "Seconds from arrival to the answer", buckets=SECONDS)
TOKEN_SECONDS = Histogram(
    "tgi_request_mean_time_per_token_duration",
    "Seconds a token of the longest response",
    buckets=STEP_SECONDS,
)
FIRST_TOKEN_SECONDS = Histogram("rlhf_policy_first_token_seconds", "Seconds from arrival to a token", buckets=SECONDS)
FORWARDS = Counter("tgi_batch_inference_count", "Forward passes", ["method"])
FORWARD_SECONDS = Histogram(
    "tgi_batch_inference_duration", "Seconds of a forward pass", ["method"], buckets=STEP_SECONDS
)
PREFIX_COLUMNS = Counter("rlhf_policy_prefix_columns", "Columns of prompts taken over from earlier ones")
ADAPTERS = Gauge("rlhf_policy_adapters_loaded", "Adapters held in memory")
ADAPTER_BYTES = Gauge("rlhf_policy_adapter_bytes", "Bytes of their merged weights")


def observe_failure(kind: str) -> None:
    """Counts a request that was queued and is not answered with text. Args: kind, of the error, or `cancelled`."""
    FAILURE.labels(kind).inc()


def observe_success(request: EngineRequest) -> None:
    """Counts a request whose rows are all done; before who waits for it is told."""
    now, started = time.monotonic(), request.started_at or request.queued_at
    lengths = [len(row.token_ids) for row in request.rows]
    SUCCESS.inc()
    QUEUE_SECONDS.observe(started - request.queued_at)
    INFERENCE_SECONDS.observe(now - started)
    REQUEST_SECONDS.observe(now - request.queued_at)
    TOKEN_SECONDS.observe((now - started) / max(lengths, default=1))
    FIRST_TOKEN_SECONDS.observe((request.first_token_at or now) - request.queued_at)
    for row, length in zip(request.rows, lengths, strict=True):
        INPUT_TOKENS.observe(len(row.prompt_ids))
        GENERATED_TOKENS.observe(length)
