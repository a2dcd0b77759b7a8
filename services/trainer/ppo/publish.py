"""What a PPO run gives to the world: a version a step for the policy servers, and full fine-tuning's final model."""

from __future__ import annotations

import logging
from functools import partial

from rlhf.artifacts.folders import make_folder
from rlhf.contracts.jobs import PpoJobConfig
from services.trainer.jobs.handle import JobHandle
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.full import FullWeights

log = logging.getLogger(__name__)

KEPT = 2
"""Newest versions of full weights that stay; each holds every trained tensor."""
FINAL_MODEL = "model"
"""The folder of the job's folder with the model as full fine-tuning leaves it."""


def publish_version(
    job: JobHandle, config: PpoJobConfig, actor: Actor, step: int, best: int | None, *, leads: bool
) -> None:
    """Publishes the weights after `step` steps; again, it changes nothing.

    Adapters all stay. Of full weights those stay that rollouts may yet ask for, the newest few, and the best; the last
    step's are written once more as an ordinary model folder.
    """
    trained = actor.trained
    weights = trained.weights(keep=leads)
    # Gathering takes all processes; the whole model is wanted once.
    last = step == config.steps
    untouched = trained.untouched(keep=leads) if isinstance(trained, FullWeights) and last else {}
    if not leads:
        return
    ref = job.store.publish("adapters", job.id, step, partial(trained.save, weights=weights))
    log.info("published", extra={"adapter": ref})
    job.event("published", f"policy servers can load {ref}", kind="published", data={"adapter": ref})
    if isinstance(trained, FullWeights):
        job.store.keep_from("adapters", job.id, oldest_needed(config, step), also=best)
        if last:
            make_folder(job.folder / FINAL_MODEL, partial(trained.save_model, tensors={**untouched, **weights}))


def oldest_needed(config: PpoJobConfig, step: int) -> int:
    """The oldest version that must stay once that of `step` is out.

    A crash takes the run back to its last checkpoint, whose next step asks for rollouts by the version of max_staleness
    steps before.
    """
    checkpoint = step if step == config.steps else step - step % config.checkpoint_every
    return min(checkpoint - config.rollout.max_staleness, step - KEPT + 1)
