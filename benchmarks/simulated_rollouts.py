"""A rollout worker that sleeps where policy and reward would work, on the real queue; for bench-rollout-scale."""

from __future__ import annotations

import os
import random
import sys
import time

from rlhf.contracts.policy import GenerateRequest, GenerateResponse, GenerateTimings, Generation
from rlhf.contracts.reward import RewardRequest, RewardResponse, RewardTimings, SampleScore
from services.trainer.settings import RolloutSettings
from services.trainer.worker import run_rollouts

TOKENS, PROMPT_TOKENS, MEMBERS = 64, 32, 5
SECONDS = float(os.environ.get("SIMULATED_ROLLOUT_S", "10"))


def generate(request: GenerateRequest) -> GenerateResponse:
    """Sleeps nine tenths of a rollout; random tokens."""
    time.sleep(0.9 * SECONDS)
    results = [
        Generation(
            prompt_index=prompt,
            sample_index=sample,
            text="word " * TOKENS,
            finish_reason="eos_token",
            generated_tokens=TOKENS,
            token_ids=[random.randrange(49152) for _ in range(TOKENS)],
            behavior_logprobs=[-random.random() for _ in range(TOKENS)],
            prompt_token_ids=[random.randrange(49152) for _ in range(PROMPT_TOKENS)],
            seed=0,
        )
        for prompt in range(len(request.prompts))
        for sample in range(request.sampling.n)
    ]
    version = 0 if request.adapter is None else int(request.adapter.partition("@")[2])
    timings = GenerateTimings(queue_s=0.0, inference_s=SECONDS)
    return GenerateResponse(
        model="simulated", adapter=request.adapter, policy_version=version, results=results, timings=timings
    )


def score(request: RewardRequest) -> RewardResponse:
    """Sleeps one tenth; equal members."""
    time.sleep(0.1 * SECONDS)
    one = SampleScore(
        reward=0.5, objectives={"preference": 0.5}, score=0.5, uncertainty=0.0, members=[0.5] * MEMBERS, truncated=False
    )
    results = [one for _ in request.samples]
    return RewardResponse(model="rm@1", results=results, timings=RewardTimings(queue_s=0.0, inference_s=SECONDS))


if __name__ == "__main__":
    sys.exit(run_rollouts(RolloutSettings(), (generate, score)))
