"""What a PPO step has to do, in samples, rows and tokens, when every response is as long as it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.contracts.base import Prompt, prompt_messages
from rlhf.contracts.jobs import PpoJobConfig

CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS = 32
"""Of a chat template around a prompt; SmolLM2's, with its own system turn, takes 30."""
SAMPLE_BYTES = 72
"""Of a sample in Redis beside ids, log-probabilities and texts: reward, scores of 5 members, lengths, framing."""
BATCH_BYTES = 900
"""Names and types of a batch in Redis."""


@dataclass(frozen=True)
class MicroBatch:
    """The largest forward-backward pass.

    Attributes:
        rows: how many, padded to one length.
        length: of each, tokens.
        responses: tokens that are predicted in it.
        packed: rows hold several samples, under a mask of their own.
    """

    rows: int
    length: int
    responses: int
    packed: bool

    @property
    def tokens(self) -> int:
        """Padded tokens of the pass."""
        return self.rows * self.length


@dataclass(frozen=True)
class StepLoad:
    """One step.

    Attributes:
        samples: responses.
        prompts: different prompts.
        prompt_tokens: of all prompts, each once.
        response_tokens: of all responses.
        learner_tokens: of all rows: a prompt stands once in each of its rows.
        row_length: tokens of a usual row.
        micro_batch: the largest.
        redis_bytes: of the step's experience.
        steps_in_redis: most steps whose experience waits there together.
    """

    samples: int
    prompts: int
    prompt_tokens: int
    response_tokens: int
    learner_tokens: int
    row_length: int
    micro_batch: MicroBatch
    redis_bytes: int
    steps_in_redis: int


def prompt_tokens(prompt: Prompt) -> int:
    """About so many tokens, rendered: the API has no tokenizer."""
    characters = sum(len(message.content) for message in prompt_messages(prompt))
    return math.ceil(characters / CHARACTERS_PER_TOKEN) + TEMPLATE_TOKENS


def step_load(
    config: PpoJobConfig, *, packs: bool, lengths: Sequence[int] | None = None, response: int | None = None
) -> StepLoad:
    """The load of a step of mean prompts; its largest micro-batch has the longest prompts.

    Args:
        config: of the job.
        packs: whether the model's family lays samples of a prompt into one row.
        lengths: tokens of each prompt; None: estimated from the texts.
        response: tokens of each response; None: the limit.
    """
    rollout, update = config.rollout, config.update
    lengths = [prompt_tokens(prompt) for prompt in config.prompts] if lengths is None else lengths
    mean, longest = math.ceil(sum(lengths) / len(lengths)), max(lengths)
    new, n, prompts = response or rollout.max_new_tokens, rollout.samples_per_prompt, rollout.prompts_per_step
    together = _samples_in_a_row(mean, new, n, update.tokens_per_microbatch, packs)
    rows = -(-n // together)
    texts = sum(len(prompt_messages(prompt)[-1].content.encode()) for prompt in config.prompts) / len(config.prompts)
    sample_bytes = 4 * mean + (8 + CHARACTERS_PER_TOKEN) * new + math.ceil(texts) + SAMPLE_BYTES
    return StepLoad(
        samples=prompts * n,
        prompts=prompts,
        prompt_tokens=prompts * mean,
        response_tokens=prompts * n * new,
        learner_tokens=prompts * (rows * mean + n * new),
        row_length=mean + together * new,
        micro_batch=_largest_micro_batch(config, longest, new, packs),
        redis_bytes=prompts * n * sample_bytes + rollout.shards * BATCH_BYTES,
        steps_in_redis=config.checkpoint_every + rollout.max_staleness,
    )


def _largest_micro_batch(config: PpoJobConfig, prompt: int, new: int, packs: bool) -> MicroBatch:
    budget, n = config.update.tokens_per_microbatch, config.rollout.samples_per_prompt
    together = _samples_in_a_row(prompt, new, n, budget, packs)
    in_minibatch = -(-config.rollout.prompts_per_step * -(-n // together) // config.update.minibatches)
    candidates = []
    # The rows with what is left of a prompt's samples are shorter, and may fill the budget better.
    for samples in {together, n % together or together}:
        length = prompt + samples * new
        # One row at least: a single one may exceed the budget.
        rows = min(max(1, budget // length), in_minibatch)
        candidates.append(MicroBatch(rows, length, rows * samples * new, packed=samples > 1))
    return max(candidates, key=lambda batch: (batch.tokens, batch.length))


def _samples_in_a_row(prompt: int, new: int, n: int, budget: int, packs: bool) -> int:
    return min(n, max(1, (budget - prompt) // new)) if packs else 1
