"""Takes a job in: checks what it refers to, writes its config to its folder, makes its record, queues it."""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError

from rlhf.artifacts.store import ArtifactStore, sync_file, sync_folder
from rlhf.contracts.errors import Conflict, InvalidInput, NotFound
from rlhf.contracts.evaluation import EvaluationJobConfig
from rlhf.contracts.jobs import AnyJobConfig, JobStatus, PpoJobConfig
from rlhf.contracts.reward import EnsembleObjective
from services.trainer.evaluation.plan import total_units
from services.trainer.jobs.celery_app import queue_of, send_learn
from services.trainer.jobs.handle import CONFIG_FILE
from services.trainer.jobs.store import Idempotency, JobStore
from services.trainer.settings import ApiSettings

log = logging.getLogger(__name__)
_PREFIXES = {"ppo": "ppo", "reward_model": "rm", "evaluation": "eval"}


@dataclass(frozen=True)
class Desk:
    """Where jobs come in.

    Attributes:
        settings: of the API.
        jobs: records.
        store: artifacts.
        app: sends to the learner's queue.
    """

    settings: ApiSettings
    jobs: JobStore
    store: ArtifactStore
    app: Celery


def submit(desk: Desk, config: AnyJobConfig, key: str | None) -> JobStatus:
    """Queues a job.

    Args:
        desk: where.
        config: validated.
        key: the caller's Idempotency-Key; the same key and config give the same job.

    Raises:
        InvalidInput: an adapter or a reward model does not exist or is damaged.
        Conflict: the key was used with another config.
    """
    body = config.model_dump_json(by_alias=True).encode()
    idempotency = None
    if key is not None:
        idempotency = Idempotency(key, hashlib.sha256(body).hexdigest(), desk.settings.idempotency_ttl_s)
        if (earlier := desk.jobs.earlier(idempotency)) is not None:
            return desk.jobs.status(earlier)
    if isinstance(config, PpoJobConfig):
        for where, ref in _reward_models(config).items():
            _check_reward_model(desk, where, ref)
    if isinstance(config, EvaluationJobConfig):
        _check_evaluation(desk, config)
    folder = _new_folder(desk.store, _PREFIXES[config.kind])
    _write_durably(folder / CONFIG_FILE, body)
    try:
        job = desk.jobs.create(folder.name, config.kind, _total_steps(config), idempotency)
    except Conflict:
        shutil.rmtree(folder)
        raise
    # After an outage of Redis the folder stays: the record may have been made although its answer was lost.
    if job != folder.name:
        # The same request came twice at the same time, and the other one was first.
        shutil.rmtree(folder)
        return desk.jobs.status(job)
    _send(desk, job, config.kind)
    return desk.jobs.status(job)


def resume(desk: Desk, job: str) -> JobStatus:
    """Puts a paused job back into the queue.

    Args:
        desk: where.
        job: its id.

    Raises:
        NotFound: no such job.
        Conflict: it has ended.
    """
    status, moved = desk.jobs.request_resume(job)
    if moved:
        _send(desk, job, status.kind)
    return status


def _send(desk: Desk, job: str, kind: str) -> None:
    try:
        send_learn(desk.app, job, queue_of(kind))
    except OperationalError as error:
        log.warning("message not sent, the reconciler will", extra={"job": job, "error": str(error)})


def _reward_models(config: PpoJobConfig) -> dict[str, str]:
    """Every reward model that a job names, by the field that names it."""
    ensembles = {
        f"objectives.{index}.model": each.model
        for index, each in enumerate(config.objectives or [])
        if isinstance(each, EnsembleObjective)
    }
    return {"reward_model": config.reward_model, **ensembles}


def _check_reward_model(desk: Desk, where: str, ref: str) -> None:
    if ref in desk.settings.panels:
        return
    try:
        desk.store.resolve("reward_models", ref)
    except (NotFound, Conflict) as error:
        message = (
            f"{where} {ref!r} cannot be used: {error}; name one that a reward_model job published, or a panel of "
            "RLHF_REWARD_PANELS"
        )
        raise InvalidInput(message) from error


def _check_evaluation(desk: Desk, config: EvaluationJobConfig) -> None:
    """Raises InvalidInput with everything that the job names and that cannot be used."""
    wrong = []
    for where, ref in (("adapter", config.adapter), ("baseline", config.baseline)):
        try:
            if ref is not None:
                desk.store.resolve("adapters", ref)
        except (NotFound, Conflict) as error:
            wrong.append(f"{where} {ref!r} cannot be used: {error}; name one that a ppo job published")
    try:
        if config.reward_model is not None:
            _check_reward_model(desk, "reward_model", config.reward_model)
    except InvalidInput as error:
        wrong.append(str(error))
    if wrong:
        raise InvalidInput("; ".join(wrong))


def _new_folder(store: ArtifactStore, prefix: str) -> Path:
    while True:
        job = f"{prefix}-{secrets.token_hex(4)}"
        names = (store.root / folder / job for folder in ("jobs", "adapters", "reward_models"))
        if not any(name.exists() for name in names):
            return store.job_folder(job)


def _total_steps(config: AnyJobConfig) -> int:
    if isinstance(config, EvaluationJobConfig):
        return total_units(config)
    return config.steps if isinstance(config, PpoJobConfig) else config.epochs


def _write_durably(path: Path, body: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(body)
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)
