"""One cell on a running stack: reward models, PPO, then held-out answers of its checkpoints, judged twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import rich.console

from benchmarks.overoptimisation.curves import by_prompt, kl_at, make_point
from benchmarks.overoptimisation.design import Cell, job_key
from rlhf.clients.follow import JobFailed, follow_job
from rlhf.clients.http import Retries
from rlhf.clients.policy import PolicyClient
from rlhf.clients.reward import RewardClient
from rlhf.clients.trainer import TrainerClient
from rlhf.contracts.jobs import PpoJobConfig, RewardModelJobConfig
from rlhf.demo.heldout import Judged, answer_prompts, describe_answers, judge_answers
from rlhf.local.jobview import JobView
from rlhf.local.stack import Stack

FIGURES = ("uncertainty_mean", "eos_rate", "rep4", "distinct2", "length_mean")


class Runner:
    """Runs cells over HTTP, as a user would. A job that an earlier run submitted is followed, not made again."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        """Args: stack, running; say, prints a line."""
        few, key = Retries(attempts=3), stack.endpoints.api_key
        self.policy = PolicyClient(stack.endpoints.policy, key, retries=few)
        self.reward = RewardClient(stack.endpoints.reward, key, retries=few)
        self.trainer = TrainerClient(stack.endpoints.trainer, key, retries=few)
        self._check, self._say = stack.supervisor.check, say

    def run(self, cell: Cell) -> dict[str, Any]:
        """The cell's result, with the points of its curves.

        Raises:
            JobFailed: it has no step to show.
            ServiceError, ServiceFailed: a service could not answer.
        """
        started = time.monotonic()
        title = f"{cell.name}: reward model of {cell.variant.members}, {len(cell.reward_model.pairs)} pairs"
        bundle, _ = self._train(cell.reward_model, title)
        measured = json.loads(self.trainer.artifact(bundle, "metrics.json"))
        config = cell.ppo(f"{bundle}@1")
        job, stopped = self._train(config, f"{cell.name}: PPO, {config.steps} steps, {cell.variant.label}")
        trained = time.monotonic()
        rows = self.trainer.metrics(job).rows
        points = []
        for step in (step for step in cell.checkpoints if step <= len(rows)):
            judged = self._evaluate(cell, config, f"{job}@{step}" if step else None)
            points.append(self._point(cell, judged, step, kl_at(rows, step)))
            self._say(f"  {cell.name} step {step}: gold {points[-1]['gold']:.3f}, proxy {points[-1]['proxy']:+.2f}")
        return {
            "seed": cell.seed,
            "variant": cell.variant.name,
            "reward_model": f"{bundle}@1",
            "reward_model_accuracy": measured["accuracy_ensemble"],
            "job": job,
            "stopped": stopped,
            "points": points,
            "steps": [{name: row.get(name) for name in ("kl_sequence", "reward_mean", "step_s")} for row in rows],
            "last_responses": describe_answers(judged)["samples"],
            "seconds": {"jobs": trained - started, "evaluation": time.monotonic() - trained},
        }

    def _train(self, config: RewardModelJobConfig | PpoJobConfig, title: str) -> tuple[str, str | None]:
        """Id of the job, and why it stopped early, if it did after at least one step of PPO."""
        job = self.trainer.submit(config, key=job_key(config)).id
        with JobView(rich.console.Console(width=200), f"{title} ({job})") as view:
            try:
                follow_job(self.trainer, job, view, self._check)
            except JobFailed as failure:
                self._check()
                if isinstance(config, RewardModelJobConfig) or not self.trainer.metrics(job).rows:
                    raise
                return job, str(failure)
        return job, None

    def _evaluate(self, cell: Cell, config: PpoJobConfig, adapter: str | None) -> Judged:
        plan = cell.plan
        generations = answer_prompts(
            plan.heldout,
            self.policy.generate,
            plan.evaluation,
            seed=plan.seeds.evaluation,
            adapter=adapter,
            between=lambda _: self._check(),
        )
        return judge_answers(plan.heldout, generations, self.reward.score, config)

    @staticmethod
    def _point(cell: Cell, judged: Judged, step: int, kl: float) -> dict[str, Any]:
        samples, described = cell.plan.evaluation.samples_per_prompt, describe_answers(judged)
        return make_point(
            step,
            kl,
            by_prompt(judged.gold, samples),
            by_prompt([each.reward for each in judged.proxy], samples),
            {name: described[name] for name in FIGURES},
        )
