"""The trainer's Prometheus metrics, in one place so that each name has one meaning."""

from __future__ import annotations

from collections.abc import Mapping

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
ACTIVE_JOBS = Gauge("rlhf_active_jobs", "Jobs that have not ended, by their queue and state", ["queue", "state"])
REQUEUED = Counter("rlhf_requeued_total", "Work queued again because its worker or message was lost", ["what"])
LEASES_LOST = Counter("rlhf_leases_lost_total", "Leases that a living worker lost")
REDIS_BYTES = Gauge("rlhf_redis_bytes", "Memory of Redis: used, and the limit at which it refuses writes", ["kind"])
WATCHDOG_ALERTS = Counter("rlhf_watchdog_alerts_total", "Findings of the watchdogs", ["watchdog"])
JOB_STEP = Gauge("rlhf_job_step", "Steps that the job has done", ["job_id"])
JOB_STEPS = Gauge("rlhf_job_steps", "Steps of the whole job", ["job_id"])
JOB_PROGRESSED = Gauge("rlhf_job_progress_timestamp_seconds", "When the job last did a step", ["job_id"])

JOB_METRICS = {
    "reward_mean": "Mean reward of the step's samples, penalties for unfinished ones included",
    "reward_std": "Standard deviation of those rewards",
    "score_mean": "Mean score of the reward model",
    "uncertainty_mean": "Mean disagreement of the ensemble",
    "kl_sequence": "KL to the reference, nats per sequence",
    "kl_target": "Where the KL controller wants it, nats per sequence",
    "beta": "Coefficient of the KL penalty",
    "entropy": "Entropy of the policy, nats per token",
    "rep4": "Share of 4-grams that repeat within a response",
    "repeated_tokens": "Share of tokens that complete an n-gram again",
    "response_length": "Tokens of a response",
    "eos_rate": "Share of responses that ended by themselves",
    "policy_loss": "PPO's clipped loss",
    "value_loss": "Loss of the value head",
    "clip_fraction": "Share of tokens whose ratio was clipped",
    "explained_variance": "Of the returns, by the value head",
    "grad_norm": "Norm of the gradient before clipping",
    "engine_mismatch": "Mean difference of the sampled tokens' log-probabilities, engine against learner",
    "staleness": "Steps that the oldest samples are behind the policy",
    "failures": "Samples of the step that were dropped",
    "tokens_per_s": "Tokens learned from per second of the step",
    "rollout_s": "Seconds that the step waited for its samples",
    "learn_s": "Seconds that the step learned",
    "loss": "Loss of the reward model on its batches",
    "validation_loss": "Loss of the reward model on pairs new to its members",
    "validation_accuracy": "Pairs new to its members that the reward model orders as people did",
}
"""What of a job's metrics becomes the gauge `rlhf_job_NAME`, and what it says."""

_JOB_GAUGES = {name: Gauge(f"rlhf_job_{name}", text, ["job_id"]) for name, text in JOB_METRICS.items()}

# Zeros from the start: what has not happened yet is not absent, and the first time is a rise.
REQUEUED.labels("job")
for _outcome in ("kept", "dropped"):
    ROLLOUT_SAMPLES.labels(_outcome)


def show_job(job: str, step: int, total: int, metrics: Mapping[str, float], now: float) -> None:
    """Sets the gauges of the job that this process runs; those of an earlier one go, so that they do not pile up.

    Args:
        job: its id.
        step: steps done.
        total: steps of the whole job.
        metrics: of the step, finite; those without a gauge are left out.
        now: Unix time, seconds.
    """
    state = {JOB_STEP: float(step), JOB_STEPS: float(total), JOB_PROGRESSED: now}
    shown = {_JOB_GAUGES[name]: value for name, value in metrics.items() if name in _JOB_GAUGES}
    for gauge in (JOB_STEP, JOB_STEPS, JOB_PROGRESSED, *_JOB_GAUGES.values()):
        shown_now = {sample.labels["job_id"] for family in gauge.collect() for sample in family.samples}
        for other in shown_now - {job}:
            gauge.remove(other)
    for gauge, value in {**state, **shown}.items():
        gauge.labels(job).set(value)
