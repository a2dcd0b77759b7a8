"""`make bench-memory`: the learner's memory, estimated as a dry run does and measured in real steps on SmolLM2.

Each case is learned twice, each time in a process of its own, from one step of random responses at the length limit.
Measured is the peak of resident memory less what the process had before it loaded the model: the libraries, which no
estimate counts. `in use`: with an allocator that gives memory back at once, so that only what is in use is resident;
of this the estimate is. `resident`: with the C library's own, which keeps what was freed. Last comes JSON, in MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CASES = (
    {"top_layers": 4, "tokens": 2048},
    {"tokens": 512},
    {"tokens": 1024},
    {"tokens": 1024, "gradient_checkpointing": True},
    {"tokens": 512, "dtype": "bfloat16"},
    {"full": True, "top_layers": 4, "tokens": 1024},
    {"full": True, "tokens": 512},
    {"full": True, "top_layers": 12, "tokens": 512, "each": 2},
)
PROMPT, RESPONSE, SAMPLES = 40, 64, 4
MIB = 2**20


def main() -> int:
    """Measures every case and prints the table."""
    parser = argparse.ArgumentParser(prog="bench-memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch threads")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(json.loads(options.case), options.threads)))
        return 0
    from rlhf.local.weights import ensure_smollm2

    ensure_smollm2(say=lambda line: print(line, file=sys.stderr))
    rows = []
    columns = {
        "trained": 8,
        "layers": 7,
        "micro-batch": 12,
        "dtype": 9,
        "recomputed": 11,
        "estimate": 9,
        "in use": 9,
        "resident": 9,
    }
    print(" ".join(f"{name:>{width}}" for name, width in columns.items()))
    for case in CASES:
        row = run_case(case, options.threads, {"MALLOC_MMAP_THRESHOLD_": "65536"})
        row["in_use_mib"], row["resident_mib"] = (
            row.pop("measured_mib"),
            run_case(case, options.threads, {})["measured_mib"],
        )
        row["ratio"] = round(row["estimate_mib"] / row["in_use_mib"], 3)
        rows.append(row)
        print(
            f"{'weights' if case.get('full') else 'adapter':>8} {case.get('top_layers', 'all'):>7} "
            f"{case['tokens']:>12} {case.get('dtype', 'float32'):>9} "
            f"{'yes' if case.get('gradient_checkpointing') else 'no':>11} {row['estimate_mib']:>9.0f} "
            f"{row['in_use_mib']:>9.0f} {row['resident_mib']:>9.0f}   ratio {row['ratio']:.2f}",
            flush=True,
        )
    print(json.dumps({"cases": rows}))
    return 0


def run_case(case: dict[str, Any], threads: int, environment: dict[str, str]) -> dict[str, Any]:
    """Measures a case in a process of its own. Args: case; threads; environment, over this one's."""
    command = [sys.executable, "-m", "benchmarks.memory", "--case", json.dumps(case), "--threads", str(threads)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **environment})
    told: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return told


def measure(case: dict[str, Any], threads: int) -> dict[str, Any]:
    """Learns from one step. Args: case, of CASES; threads, of torch."""
    import psutil
    import torch

    from rlhf.contracts.jobs import PpoJobConfig
    from rlhf.lm.loading import load_language_model
    from rlhf.local.weights import ensure_smollm2
    from services.trainer.estimate.ppo_load import step_load
    from services.trainer.estimate.ppo_memory import learner_memory
    from services.trainer.estimate.shape import DTYPE_BYTES, read_shape
    from services.trainer.ppo.learner import PpoLearner

    torch.set_num_threads(threads)
    # What the first product and the first backward pass set up belongs to the libraries.
    (torch.ones(64, 64, requires_grad=True) @ torch.ones(64, 64)).sum().backward()
    before = psutil.Process().memory_info().rss
    folder, dtype = ensure_smollm2(), case.get("dtype", "float32")
    config = PpoJobConfig.model_validate(
        {
            "kind": "ppo",
            "prompts": ["Hi"],
            "reward_model": "rm@1",
            "rollout": {
                # Two minibatches of full micro-batches: one each, or two, whose second finds the first's gradients.
                "prompts_per_step": 2 * case.get("each", 1) * (case["tokens"] // (PROMPT + SAMPLES * RESPONSE)),
                "samples_per_prompt": SAMPLES,
                "max_new_tokens": RESPONSE,
            },
            "update": {
                "epochs": 1,
                "tokens_per_microbatch": case["tokens"],
                "gradient_checkpointing": case.get("gradient_checkpointing", False),
            },
            "full" if case.get("full") else "lora": {"top_layers": case.get("top_layers")},
        }
    )
    base = load_language_model(str(folder), dtype=dtype)
    with tempfile.TemporaryDirectory() as work:
        job = SimpleNamespace(id="bench", config=config, folder=Path(work), event=lambda *_, **__: None)
        learner = PpoLearner(job, base)  # type: ignore[arg-type]
        learner.learn([random_experience(config.rollout.prompts_per_step)])
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    shape = read_shape(json.loads((folder / "config.json").read_text()))
    load = step_load(config, packs=True, lengths=[PROMPT])
    parts = learner_memory(shape, config, load, DTYPE_BYTES[dtype])
    return {
        **case,
        "estimate_mib": round(sum(parts.values()) / MIB, 1),
        "measured_mib": round((peak - before) / MIB, 1),
        "libraries_mib": round(before / MIB, 1),
        "parts_mib": {name: round(value / MIB, 1) for name, value in parts.items()},
    }


def random_experience(prompts: int) -> Any:
    """One batch of random ids, every response at its limit."""
    import numpy as np

    from services.trainer.experience.batch import ExperienceBatch

    rng, count = np.random.default_rng(0), prompts * SAMPLES
    asked = [rng.integers(0, 49152, PROMPT).astype(np.int32) for _ in range(prompts)]
    rewards = rng.normal(size=count).astype(np.float32)
    return ExperienceBatch(
        batch_id="bench:0:0",
        job="bench",
        step=0,
        shard=0,
        policy_version=0,
        group=np.repeat(np.arange(prompts, dtype=np.int32), SAMPLES),
        prompt_ids=[asked[i // SAMPLES] for i in range(count)],
        response_ids=[rng.integers(0, 49152, RESPONSE).astype(np.int32) for _ in range(count)],
        behavior_logprobs=[np.full(RESPONSE, -10.0, dtype=np.float32) for _ in range(count)],
        ended=np.zeros(count, dtype=bool),
        rewards=rewards,
        scores=rewards,
        uncertainty=np.zeros_like(rewards),
        members=rewards[:, None],
        responses=["word " * RESPONSE] * count,
        prompts=["prompt"] * count,
    )


if __name__ == "__main__":
    sys.exit(main())
