"""What each of two processes does in test_processes.py; one process alone does the same with a team of one."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from rlhf.contracts.jobs import FullConfig, LoraConfig, PpoUpdateConfig
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import collate
from services.trainer.ppo.learner import PpoLearner
from services.trainer.ppo.parallel import FILLER, Team, share_rows, whole
from services.trainer.ppo.update import Targets, update_policy
from tests.unit.ppo.stand_in import MemoryJob, job_config, make_batch, random_batch, tiny_gpt_neo, tiny_llama

STEPS = 4
CASES: dict[str, dict[str, object]] = {
    "one pass each": {"prompts": 6, "budget": 10_000},
    "several passes": {"prompts": 6, "budget": 64},
    "an odd number of rows": {"prompts": 5, "budget": 64},
    "fewer rows than processes": {"prompts": 1, "budget": 64},
    "one sample a row": {"prompts": 3, "budget": 64, "row_tokens": None},
    "another family": {"prompts": 3, "budget": 64, "row_tokens": None, "base": tiny_gpt_neo},
    "all layers adapted": {"prompts": 3, "budget": 64, "top_layers": None},
    "half-precision weights": {"prompts": 3, "budget": 64, "dtype": torch.bfloat16},
    "full weights": {"prompts": 5, "budget": 64, "kind": FullConfig},
    "full weights of all layers": {"prompts": 3, "budget": 64, "kind": FullConfig, "top_layers": None},
    "full weights of another family": {"prompts": 3, "budget": 64, "kind": FullConfig, "base": tiny_gpt_neo}
    | {"row_tokens": None},
    "full weights of a half-precision model": {"prompts": 3, "budget": 64, "kind": FullConfig, "dtype": torch.bfloat16},
}


class Stopped(Exception):
    """The run was stopped between two steps."""


def gradients(
    team: Team,
    prompts: int,
    budget: int,
    row_tokens: int | None = 1000,
    top_layers: int | None = 2,
    base: Callable[[], object] = tiny_llama,
    dtype: torch.dtype = torch.float32,
    kind: type[LoraConfig | FullConfig] = LoraConfig,
) -> dict[str, Tensor]:
    """Whole gradients of one update, and its readings."""
    model = base()
    model.model.to(dtype)
    rank = {"r": 4, "alpha": 8.0} if kind is LoraConfig else {}
    actor = Actor(model, kind(top_layers=top_layers, **rank), temperature=0.7, seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in actor.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    team.shard(actor)
    rollout = collate([random_batch(2, prompts=prompts)], row_tokens=row_tokens)
    shares = share_rows(team, rollout.rows, [], budget)
    features, old, values = {}, *torch.zeros(2, *rollout.response_ids.shape).unbind()
    with torch.no_grad():
        for part in shares.microbatches(range(len(rollout.rows))):
            rows = [rollout.rows[i] for i in part] or [FILLER]
            found = actor.lower_features(rows)
            features |= dict(zip(part, found, strict=False))
            outputs = actor(rows, found, rollout.response_ids)
            if part:
                old[outputs.sample, outputs.offset] = outputs.logprobs
                values[outputs.sample, outputs.offset] = outputs.values
    team.sum(old, values)
    mask = rollout.response_mask
    advantages = torch.where(mask, torch.randn(mask.shape, generator=generator), 0.0)
    stats = update_policy(
        actor,
        torch.optim.SGD(actor.trainable().values(), lr=0.0),
        rollout,
        features,
        Targets(old, values, advantages, torch.where(mask, advantages + values, 0.0)),
        PpoUpdateConfig(epochs=1, minibatches=1, max_grad_norm=1e9, tokens_per_microbatch=budget),
        shuffle_seed=3,
        shares=shares,
    )
    readings = {f"reading.{name}": torch.tensor(value) for name, value in stats.means().items()}
    return {name: whole(parameter.grad).clone() for name, parameter in actor.trainable().items()} | readings


def sample(task: RolloutTask) -> ExperienceBatch:
    """Experience that no policy has a say in, so that two runs can be compared whose weights differ by rounding."""
    drawn = random_batch(task.sampling.seed % 2**32, prompts=len(task.prompts), samples=2)
    responses = [ids.tolist() for ids in drawn.response_ids]
    return make_batch(
        [drawn.prompt_ids[2 * i].tolist() for i in range(len(task.prompts))],
        [responses[2 * i : 2 * i + 2] for i in range(len(task.prompts))],
        rewards=drawn.rewards.tolist(),
        behavior=[row.tolist() for row in drawn.behavior_logprobs],
        task=task,
    )


def learn(team: Team, root: Path, *, until: int = STEPS, full: bool = False) -> None:
    """Runs the job in this folder from its checkpoint until so many steps are done. The first step is value-only."""
    config = job_config(
        steps=STEPS,
        rollout={"prompts_per_step": 5, "samples_per_prompt": 2},
        update={"epochs": 2, "minibatches": 2, "value_warmup_steps": 1, "learning_rate": 3e-3},
        kl={"schedule": "adaptive", "beta": 0.05, "target": 0.1},
        **({"full": {"top_layers": 2}} if full else {}),
    )
    job = MemoryJob(root, config, sample)
    learner = PpoLearner(job, tiny_llama(), team=team)

    def stop() -> None:
        if learner.step == until:
            raise Stopped

    job.raise_if_stopped = stop
    with contextlib.suppress(Stopped):
        learner.run()
    # Publishing and writing are the first process's.
    assert ("published" in job.events) == team.leads


def be_member(rank: int, folder: Path) -> None:
    """One of two processes: gradients of all cases, a job in one go, one in two, and the middle of one process's."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "cpu:gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=120),
    )
    team = Team(rank, 2)
    for name, case in CASES.items():
        save_file(gradients(team, **case), folder / f"{name}.{rank}.safetensors")
    learn(team, folder / "two")
    learn(team, folder / "resumed", until=2)
    learn(team, folder / "resumed")
    learn(team, folder / "mixed", until=3)
    learn(team, folder / "full-two", full=True)
    learn(team, folder / "full-mixed", until=3, full=True)
    dist.destroy_process_group()
