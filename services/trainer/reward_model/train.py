"""The reward-model job: reads the pairs once through the frozen trunk, trains K members, measures, publishes."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.artifacts.folders import write_durably
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.jobs import RewardModelJobConfig
from rlhf.evaluation.preferences import pairwise_accuracy, preference_nll
from rlhf.lm.ensemble import EnsembleShape, RewardEnsemble
from rlhf.lm.ensemble_bundle import save_bundle
from rlhf.lm.exchanges import batch_rows, make_rows
from rlhf.lm.layers import LayerStack
from rlhf.lm.loading import LanguageModel
from rlhf.lm.readings import Readings
from services.trainer.jobs.handle import JobHandle
from services.trainer.jobs.record import Level
from services.trainer.ppo.checkpoint import load_newest, restore, save_checkpoint
from services.trainer.ppo.schedule import derive_seed
from services.trainer.reward_model.augment import spoilt_pairs
from services.trainer.reward_model.bags import mean_votes, member_orders, out_of_bag
from services.trainer.reward_model.card import write_card
from services.trainer.reward_model.data import FILTERS, encode_pairs, filter_pairs, read_pairs, split_by_prompt
from services.trainer.reward_model.data_report import describe_data
from services.trainer.reward_model.detection import degenerate_exchanges, measure_responses
from services.trainer.reward_model.fit import (
    Progress,
    copy_tensors,
    half_precision,
    jury_differences,
    make_optimizer,
    raw_differences,
    tensors_of,
    train_epoch,
)
from services.trainer.reward_model.heads import fit_heads
from services.trainer.reward_model.measurement import measure, standardised_votes

log = logging.getLogger(__name__)
TOKEN_BUDGET = 2048
"""Padded tokens of one forward pass of the trunk."""
ODD_SHARE = 0.05
"""Share of dropped pairs that is worth a warning: a few are in every data set."""
METRICS_FILE = "metrics.json"
DATA_FILE = "data.json"
CARD_FILE = "README.md"


def run_reward_model(job: JobHandle, base: LanguageModel) -> None:
    """Runs a reward-model job from its newest checkpoint, or from the start, to its end.

    Args:
        job: whose config is a RewardModelJobConfig.
        base: the backbone; not changed.

    Raises:
        InvalidInput: the pairs or the shape cannot be used; says why.
        TrainingFailed: a loss is not finite.
    """
    training = RewardModelTraining(job, base)
    training.read()
    training.fit()
    training.publish(training.measure())


class RewardModelTraining:
    """One attempt at one job."""

    def __init__(self, job: JobHandle, base: LanguageModel) -> None:
        """Filters and encodes the pairs, and finds where an earlier attempt got to."""
        if not isinstance(job.config, RewardModelJobConfig):
            raise InvalidInput(f"job {job.id} is of kind {job.config.kind}, not reward_model; submit it as what it is")
        self.job, self.base, self.config = job, base, job.config
        self.durations: dict[str, float] = {}
        self._prepare_pairs()
        self.ensemble = self._make_ensemble()
        self.ensemble.autocast = half_precision(self.ensemble.heads.device)
        self.tensors = tensors_of(self.ensemble)
        self.best = copy_tensors(self.tensors)
        # Of any epoch: all have the same resamples.
        self.orders = member_orders(
            self.pairs["train"].prompt, members=self.config.members, seed=self.config.seed, epoch=0
        )
        self.judges = out_of_bag(self.orders, self.pairs["train"])
        self.optimizer = make_optimizer(self.ensemble, self.config)
        self.progress = Progress()
        rows = make_rows(self.exchanges, share_prompts=self.ensemble.stack.packs)
        self.reading_steps = sum(1 for _ in batch_rows(rows, token_budget=TOKEN_BUDGET))
        self.epoch_steps = -(-len(self.pairs["train"]) // self.config.batch_size)
        # One step for the heads, and one for the end.
        self.steps = self.reading_steps + 1 + self.config.epochs * self.epoch_steps + 1
        self.resumed = self._resume()

    def read(self) -> None:
        """Runs the frozen trunk over every distinct exchange, once for all members and epochs."""
        started, done = time.perf_counter(), 0

        def after_batch(tokens: int) -> None:
            nonlocal done
            done += 1
            self.job.raise_if_stopped()
            if not self.resumed:
                # A step that is reported again would erase the rows of the epochs already done.
                self.job.progress(done, self.steps, {"tokens": float(tokens)})

        # Half precision keeps 11 bits of keys and values: a score moves by about a thousandth of a deviation.
        self.readings: Readings = self.ensemble.read(
            self.exchanges, token_budget=TOKEN_BUDGET, store_dtype=torch.float16, after_batch=after_batch
        )
        self.durations["read_s"] = time.perf_counter() - started

    def fit(self) -> None:
        """Heads, then epochs until the last or until validation stops them; keeps the best epoch's weights."""
        if self.resumed:
            # The crash may have come after the checkpoint and before its epoch was told.
            self._tell_epoch()
        else:
            self._fit_heads()
        while not self.progress.finished(self.config):
            self._train_epoch()
        restore_best = {name: tensor.data for name, tensor in self.best.items()}
        self.ensemble.load_state_dict(restore_best)
        self.ensemble.requires_grad_(False)
        self.ensemble.fit_reference(self.ensemble.raw_scores_of(self.readings, self.pairs["train"].used))
        self.durations["train_s"] = self.progress.seconds

    def measure(self) -> dict[str, Any]:
        """The content of metrics.json."""
        started = time.perf_counter()
        differences = self._jury(), raw_differences(self.ensemble, self.readings, self.pairs["evaluation"])
        jury, evaluation = (standardised_votes(each, self.ensemble.reference_std) for each in differences)
        figures = measure(jury, evaluation, self.exchanges, self.pairs["train"], self.pairs["evaluation"])
        figures |= measure_responses(
            self.ensemble,
            self.readings,
            self.pairs["evaluation"],
            self.degenerate,
            token_budget=TOKEN_BUDGET,
            store_dtype=torch.float16,
            after_batch=lambda _: self.job.raise_if_stopped(),
        )
        self.durations["measure_s"] = time.perf_counter() - started
        return figures | {
            "validation_pairs": len(self.pairs["validation"]),
            "epochs": self.progress.epoch,
            "head_penalty": self.progress.head_penalty,
            "best_epoch": self.progress.best_epoch,
            "history": self.progress.history,
            "dropped": dict(self.dropped),
            "shape": self.ensemble.shape.model_dump(),
            "durations": self.durations,
        }

    def publish(self, figures: dict[str, Any]) -> None:
        """Publishes the bundle as version 1 and writes metrics.json; both again after a crash are the same."""
        # As it will be served: the probe in the bundle is of full precision.
        self.ensemble.autocast = None

        def write(folder: Path) -> None:
            save_bundle(folder, self.ensemble, self.base, temperature=figures["temperature"])
            (folder / CARD_FILE).write_text(write_card(f"{self.job.id}@1", figures, self.data), "utf-8")

        ref = self.job.store.publish("reward_models", self.job.id, 1, write)
        write_durably(self.job.folder / METRICS_FILE, _json(figures))
        self.job.progress(self.steps, self.steps, _numbers(figures))
        self.job.event("published", f"reward servers can load {ref}", kind="published", data={"reward_model": ref})
        log.info("published", extra={"reward_model": ref, "accuracy": figures["accuracy_ensemble"]})

    def _prepare_pairs(self) -> None:
        config = self.config
        kept, dropped = filter_pairs(read_pairs(config.pairs))
        roles = split_by_prompt(kept, fraction=config.validation_fraction, seed=config.seed)
        spoilt = spoilt_pairs(kept, roles, fraction=config.spoilt_fraction, seed=config.seed)
        kept += spoilt
        roles += ["train"] * len(spoilt)
        max_length = min(config.max_length, self.base.max_positions)
        tokenizer = self.base.tokenizer
        self.exchanges, self.pairs, too_long = encode_pairs(kept, roles, tokenizer, max_length=max_length)
        self.degenerate = degenerate_exchanges(kept, roles, tokenizer, max_length=max_length, seed=config.seed)
        self.dropped = {reason: dropped[reason] for reason in FILTERS} | {"too_long": too_long}
        if total := sum(self.dropped.values()):
            level: Level = "warning" if total > ODD_SHARE * len(config.pairs) else "info"
            message = f"{total} of {len(config.pairs)} pairs were dropped"
            self.job.event("pairs_dropped", message, level=level, data=self.dropped)
        self.data = describe_data(
            len(config.pairs), self.dropped, self.exchanges, self.pairs, spoilt=len(spoilt), max_length=max_length
        )
        write_durably(self.job.folder / DATA_FILE, _json(self.data))

    def _make_ensemble(self) -> RewardEnsemble:
        config, stack = self.config, LayerStack(self.base.model)
        return RewardEnsemble(
            self.base,
            EnsembleShape(
                backbone=self.base.name,
                width=stack.width,
                trunk_layers=config.trunk_layers or max(1, stack.depth // 2),
                member_layers=config.member_layers,
                members=config.members,
                lora_r=config.lora_r,
                max_length=min(config.max_length, self.base.max_positions),
            ),
            seed=derive_seed("ensemble", config.seed),
        )

    def _resume(self) -> bool:
        checkpoint = load_newest(self.job.folder / "checkpoints")
        if checkpoint is None:
            return False
        best = {f"best.{name}": tensor for name, tensor in self.best.items()}
        restore(checkpoint, {**self.tensors, **best}, self.optimizer)
        self.progress = Progress(**checkpoint.state)
        self.job.event("resumed", f"going on after epoch {self.progress.epoch} from its checkpoint")
        return True

    def _fit_heads(self) -> None:
        started = time.perf_counter()
        features = self.ensemble.fit_features(self.readings, self.pairs["train"].used)
        self.progress.head_penalty, loss = fit_heads(
            self.ensemble, features, self.pairs, self.orders, self.judges, self.config, self.job.raise_if_stopped
        )
        self._end_epoch(loss, started)
        self._tell_epoch()

    def _train_epoch(self) -> None:
        started, progress = time.perf_counter(), self.progress
        first = self.reading_steps + 1 + progress.epoch * self.epoch_steps

        def after_batch(number: int, loss: float) -> None:
            self.job.raise_if_stopped()
            if number < self.epoch_steps:
                self.job.progress(first + number, self.steps, {"loss": loss})

        loss = train_epoch(
            self.ensemble, self.optimizer, self.readings, self.pairs["train"], self.config, progress, after_batch
        )
        progress.epoch += 1
        self._end_epoch(loss, started)
        self._checkpoint()
        self._tell_epoch()

    def _end_epoch(self, loss: float, started: float) -> None:
        """Validates, and keeps the weights when they are the best so far."""
        differences = mean_votes(self._jury())
        row = {
            "epoch": float(self.progress.epoch),
            "loss": loss,
            "validation_loss": preference_nll(differences),
            "validation_accuracy": pairwise_accuracy(differences),
        }
        self.progress.seconds += time.perf_counter() - started
        self.progress.history.append(row)
        if row["validation_loss"] < self.progress.best_loss:
            self.progress.best_epoch, self.progress.best_loss = self.progress.epoch, row["validation_loss"]
            self.best = copy_tensors(self.tensors)

    def _jury(self) -> Tensor:
        return jury_differences(self.ensemble, self.readings, self.pairs, self.judges)

    def _tell_epoch(self) -> None:
        """Reports the last epoch; rows of later steps belong to a past that is undone, and go."""
        done = self.reading_steps + 1 + self.progress.epoch * self.epoch_steps
        self.job.progress(done, self.steps, self.progress.history[-1])

    def _checkpoint(self) -> None:
        best = {f"best.{name}": tensor for name, tensor in self.best.items()}
        folder, state = self.job.folder / "checkpoints", dict(vars(self.progress))
        save_checkpoint(folder, self.progress.epoch, {**self.tensors, **best}, self.optimizer, state, [])


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=1).encode() + b"\n"
