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

from rlhf.artifacts.decisions import exact_ref
from rlhf.artifacts.folders import write_durably
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, InvalidInput, NotFound
from rlhf.contracts.evaluation import EvaluationJobConfig, Measurements
from rlhf.contracts.jobs import AnyJobConfig, JobStatus, PpoJobConfig
from rlhf.contracts.reward import EnsembleObjective
from services.trainer.api.served_model import Model, find_model
from services.trainer.evaluation.plan import total_units
from services.trainer.jobs.celery_app import queue_of, send_learn
from services.trainer.jobs.handle import CONFIG_FILE
from services.trainer.jobs.store import Idempotency, JobStore
from services.trainer.ppo.best import WINDOW, judges_any
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


def submit(desk: Desk, config: AnyJobConfig, key: str | None, priority: int = 0) -> JobStatus:
    """Queues a job.

    Args:
        desk: where.
        config: validated.
        key: the caller's Idempotency-Key; the same key, config and priority give the same job.
        priority: among the queued jobs; no part of the config, since it changes nothing that is learned.

    Raises:
        InvalidInput: see check.
        Conflict: the key was used with another config or priority.
    """
    idempotency = None
    if key is not None:
        # Of what was asked: `job@latest` may have moved on when an answer was lost and the request comes again.
        request = _dump(config) + (f"priority={priority}".encode() if priority else b"")
        idempotency = Idempotency(key, hashlib.sha256(request).hexdigest(), desk.settings.idempotency_ttl_s)
        if (earlier := desk.jobs.earlier(idempotency)) is not None:
            return desk.jobs.status(earlier)
    config = check(desk, config)
    folder = _new_folder(desk.store, _PREFIXES[config.kind])
    write_durably(folder / CONFIG_FILE, _dump(config))
    try:
        job = desk.jobs.create(folder.name, config.kind, _total_steps(config), idempotency, priority=priority)
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


def check(desk: Desk, config: AnyJobConfig) -> AnyJobConfig:
    """Looks at what a config refers to, and whether it fits the served model, as far as the API knows that.

    Returns:
        The config, with `job@version` where an adapter or a baseline is `job@latest`.

    Raises:
        InvalidInput: a reward model or adapter does not exist or is damaged, there are fewer layers, no version was
            accepted, or none can be the best; all at once.
    """
    wrongs = [wrong for where, ref in _reward_models(config).items() if (wrong := _ill_model(desk, where, ref))]
    wrongs += [wrong for where, ref in _adapters(config).items() if (wrong := _ill_adapter(desk, where, ref))]
    model = find_model(desk.settings)
    if isinstance(model, Model) and (wrong := _too_deep(config, model)):
        wrongs.append(wrong)
    if isinstance(config, PpoJobConfig) and config.promote == "best" and not judges_any(config):
        wrongs.append(
            f"promote 'best' finds no version that it can judge in {config.steps} steps with checkpoint_every="
            f"{config.checkpoint_every}: it takes the mean over {WINDOW} steps; raise steps, or set promote to 'last'"
        )
    exact = _exact(desk, config)
    if isinstance(exact, EvaluationJobConfig) and exact.adapter == exact.baseline:
        wrongs.append(f"adapter and baseline are both {exact.adapter}; name two, or leave the baseline out")
    if wrongs:
        raise InvalidInput("; ".join(wrongs))
    return exact


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


def _reward_models(config: AnyJobConfig) -> dict[str, str]:
    """Every reward model that a job names, by the field that names it."""
    named: dict[str, str] = {}
    if isinstance(config, PpoJobConfig):
        named["reward_model"] = config.reward_model
        for index, each in enumerate(config.objectives or []):
            if isinstance(each, EnsembleObjective):
                named[f"objectives.{index}.model"] = each.model
    for where, measured in _measurements(config).items():
        if measured.reward_model is not None:
            named[f"{where}reward_model"] = measured.reward_model
        if measured.red_team is not None and measured.red_team.classifier is not None:
            named[f"{where}red_team.classifier.model"] = measured.red_team.classifier.model
    return named


def _measurements(config: AnyJobConfig) -> dict[str, Measurements]:
    """What a job measures of an adapter, by what stands before its fields' names."""
    if isinstance(config, EvaluationJobConfig):
        return {"": config}
    if isinstance(config, PpoJobConfig) and config.evaluation is not None:
        return {"evaluation.": config.evaluation}
    return {}


def _ill_model(desk: Desk, where: str, ref: str) -> str | None:
    if ref in desk.settings.panels:
        return None
    try:
        desk.store.resolve("reward_models", ref)
    except (NotFound, Conflict) as error:
        return (
            f"{where} {ref!r} cannot be used: {error}; name one that a reward_model job published, or a panel of "
            "RLHF_REWARD_PANELS"
        )
    return None


def _adapters(config: AnyJobConfig) -> dict[str, str]:
    """Every adapter that a job names, by the field that names it."""
    named = {f"{where}baseline": each.baseline for where, each in _measurements(config).items()}
    if isinstance(config, EvaluationJobConfig):
        named["adapter"] = config.adapter
    return {where: ref for where, ref in named.items() if ref is not None}


def _ill_adapter(desk: Desk, where: str, ref: str) -> str | None:
    try:
        desk.store.resolve("adapters", exact_ref(desk.store, ref))
    except (NotFound, Conflict) as error:
        return f"{where} {ref!r} cannot be used: {error}; name one that a ppo job published"
    return None


def _exact(desk: Desk, config: AnyJobConfig) -> AnyJobConfig:
    """The config with the numbers of its adapters; a name stays where none can be told, which _ill_adapter does."""
    if isinstance(config, EvaluationJobConfig):
        return config.model_copy(
            update={name: _number(desk, getattr(config, name)) for name in ("adapter", "baseline")}
        )
    if isinstance(config, PpoJobConfig) and config.evaluation is not None:
        baseline = _number(desk, config.evaluation.baseline)
        evaluation = config.evaluation.model_copy(update={"baseline": baseline})
        return config.model_copy(update={"evaluation": evaluation})
    return config


def _number(desk: Desk, ref: str | None) -> str | None:
    try:
        return None if ref is None else exact_ref(desk.store, ref)
    except (NotFound, Conflict):
        return ref


def _dump(config: AnyJobConfig) -> bytes:
    return config.model_dump_json(by_alias=True).encode()


def _too_deep(config: AnyJobConfig, model: Model) -> str | None:
    layers = model.shape.layers
    if isinstance(config, EvaluationJobConfig):
        return None
    if isinstance(config, PpoJobConfig):
        name = "lora.top_layers" if config.full is None else "full.top_layers"
        asked = config.trained.top_layers
    else:
        name, asked = "trunk_layers", config.trunk_layers
    if asked is None or asked <= layers:
        return None
    return f"{name}={asked} exceeds the {layers} layers of {model.name}; lower it to {layers} or less"


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
