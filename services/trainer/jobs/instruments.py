"""The trainer's Prometheus metrics, in one place so that each name has one meaning."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TASK_SECONDS = Histogram(
    "rlhf_task_seconds",
    "Seconds of one try of a Celery task",
    ["task", "outcome"],
    buckets=(0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 3600, 14400, 86400),
)
TASK_RETRIES = Counter("rlhf_task_retries_total", "Tries of a task that will be repeated", ["task", "reason"])
ROLLOUT_SAMPLES = Counter("rlhf_rollout_samples_total", "Samples that rollouts made", ["outcome"])
BATCHES_PUSHED = Counter("rlhf_batches_pushed_total", "Batches given to the stream", ["outcome"])
QUEUE_LENGTH = Gauge("rlhf_queue_length", "Messages that wait in a queue", ["queue"])
ACTIVE_JOBS = Gauge("rlhf_active_jobs", "Jobs that have not ended, by state", ["state"])
REQUEUED = Counter("rlhf_requeued_total", "Work queued again because its worker or message was lost", ["what"])
LEASES_LOST = Counter("rlhf_leases_lost_total", "Leases that a living worker lost")
