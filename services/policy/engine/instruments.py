"""What the policy service measures, as Prometheus series."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TOKENS = Counter("rlhf_policy_tokens_total", "Response tokens generated")
PROMPT_TOKENS = Counter("rlhf_policy_prompt_tokens_total", "Prompt tokens received")
BATCH_ROWS = Histogram(
    "rlhf_policy_batch_rows", "Responses generated together in one batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
QUEUE = Gauge("rlhf_policy_queue_requests", "Requests that wait for the engine")
ADAPTERS = Gauge("rlhf_policy_adapters_loaded", "Adapters held in memory")
