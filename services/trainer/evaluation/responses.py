"""Responses of adapter and baseline to the same prompts: win rate, text measures, KL, domain metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rlhf.contracts.evaluation import ResponsesConfig
from rlhf.contracts.policy import Generation, LogprobSample
from rlhf.contracts.reward import Aggregation, RewardSample, SampleScore
from rlhf.evaluation import text_metrics
from rlhf.evaluation.bootstrap import mean_interval
from rlhf.evaluation.domain import Exchange, build_scorers, score_all
from rlhf.evaluation.win_rate import compare_groups
from services.trainer.evaluation.asking import Failure, Services, likelihoods, rewards, sample, seed_of
from services.trainer.evaluation.section import Row, Sides, chunks, failures

PROMPTS_PER_UNIT = 8
EXAMPLES = 8
PLAIN = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0}
PLAIN |= {"frequency_penalty": 0.0, "presence_penalty": 0.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0}
"""Settings under which samples come from the policy itself, which a KL estimate needs."""


class Responses:
    """A section. A row is a prompt, with the samples of each side."""

    name = "responses"

    def __init__(
        self, config: ResponsesConfig, sides: Sides, *, seed: int, reward_model: str | None, aggregation: Aggregation
    ) -> None:
        """Args: sides, who samples; seed, of the job; reward_model, None for none."""
        self.config, self.sides, self.seed = config, sides, seed
        self.reward_model, self.aggregation = reward_model, aggregation

    @property
    def units(self) -> int:
        """Requests of a few prompts each."""
        return chunks(len(self.config.prompts), PROMPTS_PER_UNIT)

    def check(self) -> None:
        """Builds the metrics: plug-ins and packages may be missing."""
        build_scorers(self.config.metrics)

    def run(self, unit: int, services: Services) -> list[Row]:
        """Samples, scores and log-ratios of some prompts."""
        start = unit * PROMPTS_PER_UNIT
        prompts = [each.prompt for each in self.config.prompts[start : start + PROMPTS_PER_UNIT]]
        rows: list[Row] = [{"prompt": start + index} for index in range(len(prompts))]
        # One seed for both sides: common random numbers take noise out of their difference.
        sampling = self.config.sampling.model_copy(update={"seed": seed_of("responses", self.seed, unit)})
        for side, ref in self.sides.items():
            sampled = sample(services, prompts, ref, sampling)
            for index, (row, answer) in enumerate(zip(rows, sampled, strict=True)):
                row[side] = self._samples(answer)
                if side == "adapter" and isinstance(answer, list):
                    self._add_ratios(services, start + index, answer, row[side])
            if self.reward_model is not None:
                self._add_rewards(services, self.reward_model, start, [row[side] for row in rows])
        return rows

    def summarise(self, rows: list[Row]) -> dict[str, Any]:
        """Figures of each side, and of one beside the other."""
        told: dict[str, Any] = {side: self._describe(rows, side) for side in self.sides}
        scores = {side: self._scores(rows, side, told[side]) for side in self.sides}
        if len(self.sides) > 1:
            told["win_rate"] = {
                name: compare_groups(scores["baseline"][name], scores["adapter"][name], seed=self.seed)
                for name in scores["adapter"]
            }
            told["kl"] = self._kl(rows)
        told["examples"] = [
            {"prompt": self.config.prompts[row["prompt"]].model_dump(mode="json")["prompt"]}
            | {side: [each.get("text") for each in row[side]][:1] for side in self.sides}
            for row in rows[:EXAMPLES]
        ]
        return told

    def _samples(self, answer: Sequence[Generation] | Failure) -> list[Row]:
        if isinstance(answer, Failure):
            return [{"error": f"not generated: {answer.reason}"} for _ in range(self.config.sampling.n)]
        return [
            {"text": each.text, "tokens": each.generated_tokens, "ended": each.finish_reason != "length"}
            for each in answer
        ]

    def _add_rewards(self, services: Services, model: str, start: int, samples: list[list[Row]]) -> None:
        there = [
            (self.config.prompts[start + index].prompt, each)
            for index, own in enumerate(samples)
            for each in own
            if "text" in each
        ]
        asked = [RewardSample(prompt=prompt, response=each["text"]) for prompt, each in there]
        for (_, each), told in zip(there, rewards(services, asked, model, self.aggregation), strict=True):
            if isinstance(told, SampleScore):
                each |= {"reward": told.reward, "uncertainty": told.uncertainty}
            else:
                each["reward_error"] = told.reason

    def _add_ratios(self, services: Services, prompt: int, answer: Sequence[Generation], samples: list[Row]) -> None:
        """Adds log π_adapter(y|x) - log π_baseline(y|x) to samples y of the adapter, nats."""
        if len(self.sides) < 2:
            return
        asked = [
            LogprobSample(prompt=self.config.prompts[prompt].prompt, response=each.token_ids or each.text)
            for each in answer
        ]
        own = likelihoods(services, asked, self.sides["adapter"])
        other = likelihoods(services, asked, self.sides["baseline"])
        for row, mine, theirs in zip(samples, own, other, strict=True):
            if isinstance(mine, Failure) or isinstance(theirs, Failure):
                row["ratio_error"] = mine.reason if isinstance(mine, Failure) else theirs.reason  # type: ignore[union-attr]
            else:
                row["log_ratio"] = math.fsum(mine.logprobs) - math.fsum(theirs.logprobs)

    def _describe(self, rows: list[Row], side: str) -> dict[str, Any]:
        samples = [each for row in rows for each in row[side]]
        there = [each for each in samples if "text" in each]
        told: dict[str, Any] = {
            "samples": len(samples),
            "not_generated": failures(each["error"] for each in samples if "error" in each),
        }
        if not there:
            return told
        texts = [each["text"] for each in there]
        told |= {
            "tokens": sum(each["tokens"] for each in there) / len(there),
            "ended": sum(each["ended"] for each in there) / len(there),
            "finish_rate": text_metrics.finish_rate(texts),
            "rep4": text_metrics.seq_rep_4(texts),
            "loops": text_metrics.loop_share(texts),
            "distinct1": text_metrics.distinct_n(texts, 1),
            "distinct2": text_metrics.distinct_n(texts, 2),
        }
        if self.reward_model is not None:
            scored = [each for each in there if "reward" in each]
            told["not_scored"] = failures(each["reward_error"] for each in there if "reward_error" in each)
            if scored:
                told["reward"] = sum(each["reward"] for each in scored) / len(scored)
                told["uncertainty"] = sum(each["uncertainty"] for each in scored) / len(scored)
        return told

    def _scores(self, rows: list[Row], side: str, told: dict[str, Any]) -> dict[str, list[list[float]]]:
        """By judge, each prompt's scores; adds the metrics' means to `told`."""
        scores: dict[str, list[list[float]]] = {}
        if self.reward_model is not None:
            scores["reward"] = [[each["reward"] for each in row[side] if "reward" in each] for row in rows]
        told["metrics"] = {}
        for name, scorer in build_scorers(self.config.metrics).items():
            own, reasons = [], []
            for row in rows:
                asked = self.config.prompts[row["prompt"]]
                exchanges = [
                    Exchange(asked.prompt, each["text"], tuple(asked.references))
                    for each in row[side]
                    if "text" in each
                ]
                values, why = score_all(scorer, exchanges)
                own.append([value for value in values if value is not None])
                reasons += why
            scores[name] = own
            flat = [value for values in own for value in values]
            mean = sum(flat) / len(flat) if flat else None
            told["metrics"][name] = {"mean": mean, "scored": len(flat), "not_scored": failures(reasons)}
        return scores

    def _kl(self, rows: list[Row]) -> dict[str, Any]:
        """KL(adapter ‖ baseline) by k1, the mean log-ratio of the adapter's own samples."""
        samples = [each for row in rows for each in row["adapter"]]
        own = [each for each in samples if "log_ratio" in each]
        prompts = [[each["log_ratio"] for each in row["adapter"] if "log_ratio" in each] for row in rows]
        means = [sum(ratios) / len(ratios) for ratios in prompts if ratios]
        changed = {name: getattr(self.config.sampling, name) for name in PLAIN}
        changed = {name: value for name, value in changed.items() if value != PLAIN[name]}
        told: dict[str, Any] = {
            "samples": len(own),
            "not_scored": failures(each["ratio_error"] for each in samples if "ratio_error" in each),
            # With these the samples are not the policy's own, and the mean log-ratio is no estimate of its KL.
            "sampling_differs": changed,
        }
        if own:
            total = sum(each["log_ratio"] for each in own)
            told |= {
                "per_sequence": total / len(own),
                "per_token": total / sum(each["tokens"] for each in own),
                "per_prompt_ci95": list(mean_interval(means, seed=self.seed)),
            }
        return told
