"""Units of prompts that every side answers once, greedily: what sections that read single responses share."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.contracts.base import Prompt
from rlhf.contracts.policy import SamplingParams
from services.trainer.evaluation.asking import Failure, Services, sample
from services.trainer.evaluation.section import Row, Sides, chunks

PROMPTS_PER_UNIT = 16


def count_units(prompts: int) -> int:
    """Units that hold so many prompts."""
    return chunks(prompts, PROMPTS_PER_UNIT)


def answer_unit(
    services: Services, unit: int, prompts: Sequence[Prompt], sides: Sides, max_new_tokens: int
) -> list[Row]:
    """A unit's prompts, answered by every side.

    Args:
        services: who is asked.
        unit: from 0.
        prompts: the section's, all of them.
        sides: who answers.
        max_new_tokens: of an answer.

    Returns:
        A row for each prompt: `prompt`, its index, and for each side `{"text"}`, or `{"error"}` with the reason.
    """
    start = unit * PROMPTS_PER_UNIT
    own = prompts[start : start + PROMPTS_PER_UNIT]
    rows: list[Row] = [{"prompt": start + index} for index in range(len(own))]
    sampling = SamplingParams(max_new_tokens=max_new_tokens, temperature=0.0, seed=0)
    for side, ref in sides.items():
        for row, answer in zip(rows, sample(services, own, ref, sampling), strict=True):
            row[side] = {"error": answer.reason} if isinstance(answer, Failure) else {"text": answer[0].text}
    return rows
