"""Prometheus metrics of the reward service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SAMPLES = Counter("rlhf_reward_samples_total", "Samples by outcome", ["outcome"])
BATCH_SAMPLES = Histogram(
    "rlhf_reward_batch_samples", "Samples scored together", buckets=(1, 4, 16, 32, 64, 128, 256, 512, 1024, 4096)
)
UNCERTAINTY = Histogram(
    "rlhf_reward_uncertainty",
    "Population standard deviation over members, standardised scores",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4),
)
QUEUE = Gauge("rlhf_reward_queue", "Requests that wait")
BUNDLES = Gauge("rlhf_reward_models_loaded", "Reward models in memory")
