"""The same first step on both sides: TRL samples it, and our learner learns from TRL's own batch.

Same adapter, same scores, same minibatches in the same order, values 0 and not learned, no gradient clipping: then the
mean policy loss of all optimiser steps and KL have to be equal up to rounding.

As a program, which is the part that needs torch: python -m benchmarks.ppo_steps.check FOLDER
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.ours import LocalJob
from benchmarks.ppo_steps.peer import call_trl
from benchmarks.ppo_steps.work import Work
from benchmarks.servers import environment
from rlhf.local.machine import physical_cores
from rlhf.local.processes import run_tool
from rlhf.local.signals import StopSignals

SPREAD = 0.002
"""Standard deviation of the adapter's second factor: KL becomes some hundredths of a nat."""
LOSS_TOLERANCE, KL_TOLERANCE = 1e-3, 0.01
"""Of the policy loss, whose scale is 1 since advantages are whitened; of KL, relative."""


def check_first_step(work: Work, signals: StopSignals) -> dict[str, Any]:
    """Policy loss and KL of one step, of both sides, and whether they agree.

    Args:
        work: of a round; checked with two minibatches at least, since over a whole batch the first loss is always 0.
        signals: of the benchmark.
    """
    work = replace(work, steps=1, minibatches=max(2, work.minibatches))
    with tempfile.TemporaryDirectory(prefix="rlhf-bench-") as folder:
        adapter = Path(folder) / "adapter.safetensors"
        check = {"adapter": str(adapter), "spread": SPREAD, "orders": _call("orders", work, folder, signals)}
        theirs = call_trl(work.settings() | {"check": check}, signals, {})
        (Path(folder) / "trl.json").write_text(json.dumps(theirs))
        ours = _call("learn", work, folder, signals)
    trl = {"policy_loss": theirs["policy_loss"], "kl": theirs["kl"]}
    agree = abs(ours["policy_loss"] - trl["policy_loss"]) <= LOSS_TOLERANCE
    agree = agree and abs(ours["kl"] - trl["kl"]) <= KL_TOLERANCE * abs(trl["kl"])
    return {"ours": ours, "trl": trl, "agree": agree}


def _call(what: str, work: Work, folder: str, signals: StopSignals) -> Any:
    (Path(folder) / "work.json").write_text(json.dumps(asdict(work), default=str))
    command = [sys.executable, "-m", "benchmarks.ppo_steps.check", what, folder]
    try:
        output = run_tool(command, environment(physical_cores()), signals)
    except subprocess.CalledProcessError as error:
        print(error.output, file=sys.stderr)
        raise
    return json.loads(output.splitlines()[-1])


def main() -> int:
    """The part in a process of its own."""
    what, name = sys.argv[1:]
    folder = Path(name)
    told = json.loads((folder / "work.json").read_text())
    work = Work(**told | {"model": Path(told["model"]), "classifier": Path(told["classifier"])})
    print(json.dumps(orders(work) if what == "orders" else learn(work, folder)))
    return 0


def orders(work: Work) -> list[list[int]]:
    """Our order of samples, one an epoch: its minibatches joined."""
    from services.trainer.ppo.schedule import derive_seed
    from services.trainer.ppo.update import shuffled_minibatches

    seed = derive_seed("shuffle", work.seed, 0) % 2**40
    return [
        [sample for part in shuffled_minibatches(work.prompts, work.minibatches, seed, epoch) for sample in part]
        for epoch in range(work.epochs)
    ]


def learn(work: Work, folder: Path) -> dict[str, float]:
    """One step of our learner on TRL's batch."""
    import torch
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    from rlhf.lm.loading import load_language_model
    from services.trainer.ppo.learner import PpoLearner

    torch.set_num_threads(physical_cores())
    config = work.job(value_coefficient=0.0, max_grad_norm=1e9)
    job: Any = LocalJob(config, folder / "job")
    learner = PpoLearner(job, load_language_model(str(work.model)))
    trained: Any = learner.actor.trained
    set_peft_model_state_dict(trained.peft_model, load_file(folder / "adapter.safetensors"))
    metrics = learner.learn([read_batch(json.loads((folder / "trl.json").read_text()))])
    return {"policy_loss": metrics["policy_loss"], "kl": metrics["kl_sequence"]}


def read_batch(told: dict[str, Any]) -> Any:
    """TRL's samples as a batch of experience."""
    import numpy as np

    from services.trainer.experience.batch import ExperienceBatch

    rewards = np.array(told["scores"], np.float32)
    count = len(rewards)
    return ExperienceBatch(
        batch_id="bench:0:0",
        job="bench",
        step=0,
        shard=0,
        policy_version=0,
        group=np.arange(count, dtype=np.int32),
        prompt_ids=[np.array(ids, np.int32) for ids in told["prompt_ids"]],
        response_ids=[np.array(ids, np.int32) for ids in told["response_ids"]],
        behavior_logprobs=[np.array(row, np.float32) for row in told["behavior_logprobs"]],
        ended=np.zeros(count, np.bool_),
        rewards=rewards,
        scores=rewards,
        uncertainty=np.zeros_like(rewards),
        members=rewards[:, None],
        responses=[""] * count,
        prompts=[""] * count,
    )


if __name__ == "__main__":
    sys.exit(main())
