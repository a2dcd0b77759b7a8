"""Held-out prompts answered by the policy and judged twice: by the learned ensemble (proxy), by the rubric (gold)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rlhf.contracts.jobs import PpoJobConfig
from rlhf.contracts.policy import GenerateRequest, GenerateResponse, Generation, SamplingParams
from rlhf.contracts.reward import RewardRequest, RewardResponse, RewardSample, SampleFailure, SampleScore
from rlhf.demo.dataset import PromptRow
from rlhf.demo.preset import EvaluationPreset, conversation, derive_seed
from rlhf.demo.rubric import score
from rlhf.evaluation.text_metrics import distinct_n, seq_rep_4


class NotScored(RuntimeError):
    """The reward service could not score a held-out response; says which and why."""


@dataclass(frozen=True)
class Judged:
    """Responses to the held-out prompts with both judges' scores, one row a response, by prompt, then sample."""

    rows: list[PromptRow]
    generations: list[Generation]
    proxy: list[SampleScore]
    gold: list[float]


def answer_prompts(
    rows: Sequence[PromptRow],
    generate: Callable[[GenerateRequest], GenerateResponse],
    preset: EvaluationPreset,
    *,
    seed: int,
    adapter: str | None,
    between: Callable[[int], None],
) -> list[Generation]:
    """Responses in order of prompt, then sample. The same seed draws the same random numbers, whatever the adapter.

    Args:
        rows: the prompts.
        generate: asks the policy service.
        preset: limits and temperature.
        seed: of the evaluation.
        adapter: `job@version`; null is the base model.
        between: told after each request how many prompts are answered.
    """
    generations: list[Generation] = []
    for start in range(0, len(rows), preset.prompts_per_request):
        part = rows[start : start + preset.prompts_per_request]
        sampling = SamplingParams(
            max_new_tokens=preset.max_new_tokens,
            temperature=preset.temperature,
            n=preset.samples_per_prompt,
            seed=derive_seed(seed, f"request {start}"),
        )
        request = GenerateRequest(prompts=[conversation(row) for row in part], adapter=adapter, sampling=sampling)
        generations += generate(request).results
        between(start + len(part))
    return generations


def judge_answers(
    rows: Sequence[PromptRow],
    generations: Sequence[Generation],
    score_samples: Callable[[RewardRequest], RewardResponse],
    config: PpoJobConfig,
) -> Judged:
    """Scores responses as training rewards them, and by the rubric.

    Args:
        rows: the prompts.
        generations: the same number for each prompt, in order.
        score_samples: asks the reward service.
        config: names the reward model, its aggregation and the objectives.

    Raises:
        NotScored: a response has no score from the ensemble.
    """
    rows = [row for row in rows for _ in range(len(generations) // len(rows))]
    samples = [
        RewardSample(prompt=conversation(row), response=generation.text)
        for row, generation in zip(rows, generations, strict=True)
    ]
    request = RewardRequest(
        samples=samples, model=config.reward_model, aggregation=config.aggregation, objectives=config.objectives
    )
    proxy: list[SampleScore] = []
    for row, result in zip(rows, score_samples(request).results, strict=True):
        if isinstance(result, SampleFailure):
            raise NotScored(f"reward could not score the response to {row['id']}: {result.error}")
        proxy.append(result)
    gold = [score(row["prompt"], each.text).total for row, each in zip(rows, generations, strict=True)]
    return Judged(list(rows), list(generations), proxy, gold)


def describe_answers(judged: Judged) -> dict[str, Any]:
    """The report's `before` or `after`. `length_mean` in tokens, EOS included; `eos_rate` by the engine's reason."""
    texts = [each.text for each in judged.generations]
    return {
        "gold_mean": fmean(judged.gold),
        "proxy_mean": fmean(each.reward for each in judged.proxy),
        "uncertainty_mean": fmean(each.uncertainty for each in judged.proxy),
        "rep4": seq_rep_4(texts),
        "distinct2": distinct_n(texts, 2),
        "eos_rate": fmean(each.finish_reason == "eos_token" for each in judged.generations),
        "length_mean": fmean(each.generated_tokens for each in judged.generations),
        "samples": [
            {
                "id": row["id"],
                "type": row["type"],
                "prompt": row["prompt"],
                "response": generation.text,
                "finish_reason": generation.finish_reason,
                "gold": gold,
                "proxy": proxy.reward,
                "uncertainty": proxy.uncertainty,
            }
            for row, generation, proxy, gold in zip(
                judged.rows, judged.generations, judged.proxy, judged.gold, strict=True
            )
        ],
    }
