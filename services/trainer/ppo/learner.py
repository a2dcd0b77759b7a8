"""The PPO learner: pulls a step's experience, learns from it, checkpoints, publishes and acknowledges."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf.contracts.jobs import BestVersion, PpoJobConfig
from rlhf.evaluation.text_metrics import rep_n
from rlhf.lm.loading import LanguageModel
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.jobs.handle import JobHandle, ServicesFailed
from services.trainer.jobs.instruments import WATCHDOG_ALERTS
from services.trainer.jobs.record import Level
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.advantages import explained_variance, gae, whiten
from services.trainer.ppo.best import WINDOW, Best, find_best, unjudged
from services.trainer.ppo.checkpoint import load_newest, restore, save_checkpoint
from services.trainer.ppo.collate import Rollout, collate
from services.trainer.ppo.kl import KlController, estimate_kl
from services.trainer.ppo.parallel import Shares, Team, share_rows
from services.trainer.ppo.passes import lower_features, score_rollout
from services.trainer.ppo.publish import publish_version
from services.trainer.ppo.rewards import leave_one_out, repeated_ngrams, sequence_rewards, shape_rewards
from services.trainer.ppo.schedule import derive_seed, learning_rate, rollout_tasks, steps_to_ask_for
from services.trainer.ppo.update import Targets, shuffled_minibatches, update_policy
from services.trainer.ppo.watchdogs import NAMES, Alert, watch

log = logging.getLogger(__name__)
ALONE = Team()
for _name in NAMES:
    WATCHDOG_ALERTS.labels(_name)  # at 0, so that the first finding is a rise


class TrainingStopped(RuntimeError):
    """The run cannot go on; the message says why and what to do. The last good checkpoint is kept."""


def run_ppo(job: JobHandle, base: LanguageModel, *, team: Team = ALONE) -> None:
    """Runs a PPO job from its newest checkpoint, or from the start, to its end.

    Args:
        job: whose config is a PpoJobConfig.
        base: used during the run and given back unchanged; several processes leave it sharded.
        team: the processes that run it together; this one alone, unless told.

    Raises:
        TrainingStopped: a fatal watchdog.
        ServicesFailed: too many failed samples, or a rollout that was tried in vain; the job can go on later.
    """
    learner = PpoLearner(job, base, team=team)
    try:
        learner.run()
    finally:
        if team.size == 1:
            learner.actor.detach()


class PpoLearner:
    """State of one run: actor, optimiser, KL controller, metrics so far."""

    def __init__(self, job: JobHandle, base: LanguageModel, *, team: Team = ALONE) -> None:
        """Args: job; base, which may get an adapter: `actor.detach()` takes it off again; team, of processes."""
        if not isinstance(job.config, PpoJobConfig):
            raise TypeError(f"job {job.id} has kind {job.config.kind!r}; the PPO learner runs kind 'ppo'")
        self.job, self.config = job, job.config
        seed = derive_seed("adapter", self.config.seed)
        self.actor = Actor(base, self.config.trained, temperature=self.config.rollout.temperature, seed=seed)
        self.team = team
        team.shard(self.actor)
        self.optimizer = torch.optim.AdamW(self.actor.trainable().values(), lr=0.0, eps=1e-5, weight_decay=0.0)
        self.kl = KlController(self.config.kl, self.config.steps)
        self.history: list[dict[str, float]] = []
        self.best: Best | None = None
        self.checkpoints = job.folder / "checkpoints"
        self.step = 0

    def resume(self) -> None:
        """Goes to where the newest checkpoint ends; does nothing when there is none."""
        checkpoint = load_newest(self.checkpoints)
        self.team.check_agreement("the newest checkpoint's step", checkpoint.step if checkpoint else 0)
        if checkpoint is None:
            return
        restore(checkpoint, self.actor.trainable(), self.optimizer)
        self.kl.restore(checkpoint.state)
        self.step, self.history = checkpoint.step, checkpoint.history
        self.best = find_best(self.history, self.config)
        self.job.event("resumed", f"going on at step {self.step} from its checkpoint")
        # The crash may have come after the checkpoint and before its adapter and its metrics were out.
        self._publish()
        self.job.progress(self.step, self.config.steps, self.history[-1], self._best_version())

    def run(self) -> None:
        """Does the steps that are left."""
        self.resume()
        unacknowledged: list[ExperienceBatch] = []
        while self.step < self.config.steps:
            self.job.raise_if_stopped()
            started = time.monotonic()
            for step in steps_to_ask_for(self.config, self.step):
                self.job.enqueue(rollout_tasks(self.config, self.job.id, step))
            batches = self.job.pull(self.step, self.config.rollout.shards)
            waited = time.monotonic() - started
            metrics = self.learn(batches)
            # Who lost the job while it was learning writes nothing more; who must only stop keeps what it has learned.
            self.job.raise_if_lost()
            elapsed = time.monotonic() - started
            metrics.update(
                rollout_s=waited, learn_s=elapsed - waited, step_s=elapsed, tokens_per_s=metrics["tokens"] / elapsed
            )
            self.history.append(metrics)
            self._alert(watch(self.history, kl_target=self.config.kl.target))
            self.step += 1
            unacknowledged += batches
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                self._checkpoint()
                self.job.acknowledge(unacknowledged)
                unacknowledged = []
            self._publish()
            self._tell(batches, metrics)
        self._tell_best()

    def learn(self, batches: Sequence[ExperienceBatch]) -> dict[str, float]:
        """One PPO step on its batches; returns the step's metrics."""
        self._check_failures(batches)
        config, actor = self.config, self.actor
        rollout = collate(batches, row_tokens=config.update.tokens_per_microbatch if actor.stack.packs else None)
        mask = rollout.response_mask
        shuffle_seed = derive_seed("shuffle", config.seed, self.step) % 2**40
        shares = self._share(rollout, shuffle_seed)
        features = lower_features(actor, rollout, shares)
        scored = score_rollout(actor, rollout, features, shares)
        kl = estimate_kl(scored.old_logprobs, scored.ref_logprobs, mask)

        rewards = sequence_rewards(rollout.rewards, rollout.ended, config.rollout.missing_eos_penalty)
        centred = leave_one_out(rewards, rollout.group) if config.update.baseline == "group" else rewards
        beta = self.kl.beta
        repeated = repeated_ngrams(rollout.response_ids, mask, config.rollout.repeated_ngram_size)
        shaped = shape_rewards(centred, scored.old_logprobs, scored.ref_logprobs, mask, beta)
        shaped -= config.rollout.repeated_ngram_penalty * repeated
        advantages, returns = gae(shaped, scored.old_values, mask, config.update.gamma, config.update.lam)
        whitened = whiten(advantages, mask) if config.update.whiten_advantages else advantages

        rate = learning_rate(config.update, self.step, config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        targets = Targets(scored.old_logprobs, scored.old_values, whitened, returns)
        value_only = self.step < config.update.value_warmup_steps
        stats = update_policy(
            actor,
            self.optimizer,
            rollout,
            features,
            targets,
            config.update,
            shuffle_seed=shuffle_seed,
            value_only=value_only,
            shares=shares,
        )
        self.kl.update(self.step, kl.sequence, len(rollout.rewards))
        mismatch = (scored.old_logprobs - rollout.behavior_logprobs)[mask].abs().mean()
        return {
            **stats.means(),
            "ratio_first_minibatch": stats.ratio_first_minibatch,
            "epochs": stats.epochs,
            "value_only": float(value_only),
            "learning_rate": rate,
            "kl_sequence": kl.sequence,
            "kl_token": kl.token,
            "kl_k3": kl.k3,
            "kl_target": config.kl.target,
            "beta": beta,
            "explained_variance": explained_variance(scored.old_values, returns, mask),
            "engine_mismatch": float(mismatch),
            "staleness": float(self.step - min(b.policy_version for b in batches)),
            "repeated_tokens": float(repeated.sum() / mask.sum()),
            **_describe(rollout, rewards, batches),
        }

    def _share(self, rollout: Rollout, shuffle_seed: int) -> Shares:
        update, count = self.config.update, len(rollout.rows)
        minibatches = [
            rows
            for epoch in range(update.epochs)
            for rows in shuffled_minibatches(count, update.minibatches, shuffle_seed, epoch)
        ]
        return share_rows(self.team, rollout.rows, minibatches, update.tokens_per_microbatch)

    def _check_failures(self, batches: Sequence[ExperienceBatch]) -> None:
        failures = [reason for b in batches for reason in b.failures]
        samples = sum(len(b.rewards) for b in batches)
        share = len(failures) / max(1, samples + len(failures))
        limit = self.config.rollout.max_failed_fraction
        if failures:
            message = f"{len(failures)} of {samples + len(failures)} samples failed and were dropped: {failures[0]}"
            self.job.event("samples_dropped", message, level="warning", data={"step": self.step, "share": share})
        if samples == 0 or share > limit:
            # A step is learned from once, so as to give the same weights however often it was tried: what lacks samples
            # is made again, from the same prompts and seeds, and what is complete stays.
            self.job.discard([b for b in batches if b.failures or not len(b)])
            raise ServicesFailed(
                f"step {self.step}: {share:.0%} of the samples failed (rollout.max_failed_fraction={limit}); "
                f"the first reason: {failures[0] if failures else 'the rollouts are empty'}"
            )

    def _checkpoint(self) -> None:
        self.best = find_best(self.history, self.config)
        keep = {*unjudged(self.step, self.config), *([self.best.step] if self.best else [])}
        parameters, state, write = self.actor.trainable(), self.kl.state(), self.team.leads
        save_checkpoint(self.checkpoints, self.step, parameters, self.optimizer, state, self.history, keep, write=write)

    def _publish(self) -> None:
        if self.step:
            best = self.best.step if self.best else None
            publish_version(self.job, self.config, self.actor, self.step, best, leads=self.team.leads)

    def _best_version(self) -> BestVersion | None:
        best = self.best
        if best is None:
            return None
        return BestVersion(step=best.step, adapter=f"{self.job.id}@{best.step}", reward=best.reward, kl=best.kl)

    def _tell_best(self) -> None:
        if (best := self._best_version()) is not None:
            message = f"{best.adapter} did best: reward {best.reward:.3f} at KL {best.kl:.2f}, means of {WINDOW} steps"
            self.job.event("best", message, data=best.model_dump())

    def _alert(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            data = {"step": self.step, "value": alert.value, "threshold": alert.threshold, "hint": alert.hint}
            level: Level = "error" if alert.fatal else "warning"
            self.job.event(alert.name, alert.message, kind="watchdog", level=level, data=data)
        fatal = [alert for alert in alerts if alert.fatal]
        if fatal:
            raise TrainingStopped(f"step {self.step}: {fatal[0].message}")

    def _tell(self, batches: Sequence[ExperienceBatch], metrics: dict[str, float]) -> None:
        best = max(batches, key=lambda b: float(b.rewards.max()) if len(b.rewards) else float("-inf"))
        i = int(best.rewards.argmax())
        sample = {
            "step": self.step,
            "prompt": best.prompts[i],
            "response": best.responses[i],
            "reward": float(best.rewards[i]),
            "uncertainty": float(best.uncertainty[i]),
        }
        self.job.event("sample", "the step's best response", data=sample)
        self.job.progress(self.step, self.config.steps, metrics, self._best_version())


def _describe(rollout: Rollout, rewards: Tensor, batches: Sequence[ExperienceBatch]) -> dict[str, float]:
    responses = [text for b in batches for text in b.responses]
    return {
        "samples": len(rewards),
        "tokens": int(rollout.response_mask.sum()),
        "failures": sum(len(b.failures) for b in batches),
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std(unbiased=False)),
        "score_mean": float(rollout.scores.mean()),
        "uncertainty_mean": float(rollout.uncertainty.mean()),
        **_objective_means(batches),
        "response_length": float(rollout.response_mask.sum(-1).float().mean()),
        "eos_rate": float(rollout.ended.float().mean()),
        "rep4": sum(rep_n(text, 4) for text in responses) / len(responses),
        "generate_s": sum(b.timings.get("generate_s", 0.0) for b in batches),
        "score_s": sum(b.timings.get("score_s", 0.0) for b in batches),
    }


def _objective_means(batches: Sequence[ExperienceBatch]) -> dict[str, float]:
    """Before the weights. A batch without samples has no objectives."""
    names = dict.fromkeys(name for b in batches for name in b.objectives)
    values = {name: np.concatenate([b.objectives[name] for b in batches if name in b.objectives]) for name in names}
    return {f"objective_{name}_mean": float(each.mean(dtype=np.float64)) for name, each in values.items()}
