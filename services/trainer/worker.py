"""A Celery worker process: `python -m services.trainer.worker learner|rollouts|evaluations`.

Under torchrun it is one of the several processes of one learner.

SIGTERM, SIGINT and SIGHUP mean the same: take nothing new, bring running work to a good place to stop within
`stop_grace_s`, put the rest back into the queue, exit 0.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.platforms import SecurityWarning
from celery.worker import state
from prometheus_client import start_http_server

from rlhf.serving.logs import configure_logs
from services.trainer.jobs.celery_app import EVALUATION_QUEUE, LEARNER_QUEUE, ROLLOUT_QUEUE, create_celery
from services.trainer.jobs.connection import WORKER_RETRIES, connect
from services.trainer.jobs.tasks import (
    ENTRY_POINTS,
    EVALUATION_ENTRY_POINTS,
    Learner,
    hand_back,
    load_base_model,
    register_learner,
)
from services.trainer.settings import EvaluationSettings, LearnerSettings, RolloutSettings, WorkerSettings

if TYPE_CHECKING:
    from services.trainer.evaluation.asking import Services
    from services.trainer.rollouts.rollout import Generate, Score

log = logging.getLogger(__name__)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Runs one worker until it is told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.trainer.worker", description=__doc__)
    parser.add_argument("queue", choices=[LEARNER_QUEUE, ROLLOUT_QUEUE, EVALUATION_QUEUE])
    match parser.parse_args(arguments).queue:
        case "learner" if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from services.trainer.ppo.processes import run_processes

            return run_processes(LearnerSettings(), run_learner)
        case "learner":
            return run_learner(LearnerSettings())
        case "evaluations":
            return run_evaluations(EvaluationSettings())
    return run_rollouts(RolloutSettings())


def run_learner(
    settings: LearnerSettings,
    entry_points: Mapping[str, str] = ENTRY_POINTS,
    load_base: Callable[[LearnerSettings], Any] = load_base_model,
) -> int:
    """The learner worker: one job at a time, in the main thread, since torch and forked processes do not mix.

    Args:
        settings: of the process.
        entry_points: kind of job to `module:function(job, base)`.
        load_base: loads what the jobs get as `base`.
    """
    app, stopping = create_celery(settings, retries=WORKER_RETRIES), threading.Event()
    learner = Learner(settings, connect(settings, retries=WORKER_RETRIES), app, stopping, dict(entry_points), load_base)
    register_learner(learner)
    return _work(app, settings, LEARNER_QUEUE, "solo", 1, stopping, lambda: hand_back(learner))


def run_rollouts(settings: RolloutSettings, services: tuple[Generate, Score] | None = None) -> int:
    """The rollout worker: a few tasks at a time in threads that mostly wait for HTTP answers.

    Args:
        settings: of the process.
        services: ask policy and reward; null: over HTTP, where the settings say.
    """
    from services.trainer.rollouts.tasks import Roller, register_rollouts

    generate, score = services or connect_services(settings)
    app, stopping = create_celery(settings, retries=WORKER_RETRIES), threading.Event()
    redis = connect(settings, retries=WORKER_RETRIES)
    register_rollouts(app, Roller(settings, redis, generate, score, stopping))
    return _work(app, settings, ROLLOUT_QUEUE, "threads", settings.rollout_concurrency, stopping, lambda: None)


def run_evaluations(settings: EvaluationSettings) -> int:
    """The evaluation worker: one job at a time, with all that a learner's job has (lease, pause, cancel); no torch."""
    app, stopping = create_celery(settings, retries=WORKER_RETRIES), threading.Event()
    redis = connect(settings, retries=WORKER_RETRIES)
    points = dict(EVALUATION_ENTRY_POINTS)
    worker = Learner(settings, redis, app, stopping, points, connect_evaluation, queue=EVALUATION_QUEUE)
    register_learner(worker)
    return _work(app, settings, EVALUATION_QUEUE, "solo", 1, stopping, lambda: hand_back(worker))


def connect_evaluation(settings: EvaluationSettings) -> Services:
    """What an evaluation asks, over HTTP."""
    from rlhf.clients.http import Retries
    from rlhf.clients.policy import PolicyClient
    from rlhf.clients.reward import RewardClient
    from services.trainer.evaluation.asking import Services

    key = settings.api_key.get_secret_value() if settings.api_key else None
    retries, limit = Retries(attempts=3), settings.evaluation_timeout_s
    policy = PolicyClient(settings.policy_url, key, timeout_s=limit, retries=retries)
    reward = RewardClient(settings.reward_url, key, timeout_s=limit, retries=retries)
    return Services(policy.generate, policy.logprobs, reward.score)


def connect_services(settings: RolloutSettings) -> tuple[Generate, Score]:
    """The HTTP clients of policy and reward."""
    from rlhf.clients.http import Retries
    from rlhf.clients.policy import PolicyClient
    from rlhf.clients.reward import RewardClient

    key = settings.api_key.get_secret_value() if settings.api_key else None
    # The clients bridge hiccups; an outage is the task's to wait out, which says so in metrics and can be stopped.
    # Their timeout comes a little after the task's own limit, and ends what that limit abandoned.
    retries, limit = Retries(attempts=3), settings.rollout_time_limit_s + 5.0
    policy = PolicyClient(settings.policy_url, key, timeout_s=limit, retries=retries)
    reward = RewardClient(settings.reward_url, key, timeout_s=limit, retries=retries)
    return policy.generate, reward.score


def _work(
    app: Celery,
    settings: WorkerSettings,
    queue: str,
    pool: str,
    concurrency: int,
    stopping: threading.Event,
    hand_back: Callable[[], None],
) -> int:
    # Celery warns that root may be abused through messages that are pickles; ours are JSON, and only JSON is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)

    @signals.setup_logging.connect(weak=False)
    def configure(**_: Any) -> None:
        configure_logs(settings.log_level)
        # Celery's lines on each task carry its arguments, which hold users' prompts; the tasks log what matters.
        for chatty in ("celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(chatty).setLevel(logging.WARNING)

    def stop(number: int, frame: FrameType | None) -> None:
        state.should_stop = 0
        if not stopping.is_set():
            stopping.set()
            timer = threading.Timer(settings.stop_grace_s + 1.5, _leave, [hand_back])
            timer.daemon = True
            timer.start()

    @signals.worker_ready.connect(weak=False)
    def announce(**_: Any) -> None:
        if settings.metrics_port is not None:
            server, _thread = start_http_server(settings.metrics_port, addr=settings.metrics_host)
            log.info("metrics", extra={"port": server.server_port})
        log.info("ready", extra={"queue": queue, "concurrency": concurrency})

    worker = _worker_class(app, stop)(
        hostname=f"{queue}-{os.getpid()}@{socket.gethostname()}",
        queues=[queue],
        pool=pool,
        concurrency=concurrency,
        loglevel=settings.log_level.upper(),
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    log.info("stopped", extra={"queue": queue})
    return int(worker.exitcode or 0)


def _worker_class(app: Celery, stop: Callable[[int, FrameType | None], None]) -> Any:
    """Celery's worker with our stop signals: its own restart it on SIGHUP and make it exit with 1 on SIGINT."""

    class StoppableWorker(app.Worker):  # type: ignore[misc, name-defined]
        def install_platform_tweaks(self, worker: Any) -> None:
            for number in STOP_SIGNALS:
                signal.signal(number, stop)

    return StoppableWorker


def _leave(hand_back: Callable[[], None]) -> None:
    """Ends a process whose work did not come to a stop: nothing durable depends on it, and someone may be waiting."""
    log.warning("not done in time, leaving; unfinished work goes on from its last checkpoint")
    # Beside this thread: without Redis it would wait for it, and the lease then does the same a little later.
    helper = threading.Thread(target=hand_back, daemon=True)
    helper.start()
    helper.join(2.0)
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
