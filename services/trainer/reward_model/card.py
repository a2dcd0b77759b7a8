"""The model card that lies in every bundle: what the ensemble is, what it learned from, how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIGNALS = {
    "auroc_novelty": "novelty",
    "auroc_uncertainty": "deviation between members",
    "auroc_low_score": "low score",
}


def write_card(ref: str, figures: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """A model card in Markdown, with the front matter of the Hugging Face Hub.

    Args:
        ref: `job@version`.
        figures: the content of metrics.json.
        data: the content of data.json.
    """
    shape, roles = figures["shape"], data["roles"]
    low, high = figures["accuracy_ensemble_ci95"]
    members = ", ".join(
        f"{accuracy:.1%} ({least:.1%} to {most:.1%})"
        for accuracy, (least, most) in zip(figures["accuracy_members"], figures["accuracy_members_ci95"], strict=True)
    )
    scores = ", ".join(_spread(side, figures["scores"][side]) for side in ("chosen", "rejected"))
    quarters = ", ".join(f"{accuracy:.1%}" for accuracy in figures["accuracy_by_uncertainty_quartile"])
    calibration = f"{figures['ece']:.3f} at temperature {figures['temperature']:.2f}, "
    calibration += f"{figures['ece_before_temperature']:.3f} without"
    dropped = ", ".join(f"{count} {reason}" for reason, count in data["dropped"].items() if count) or "none"
    measured, trained = roles["evaluation"], roles["train"]
    told = figures["degenerate"]
    kinds = list(told["texts"])
    signals = "\n".join(
        f"| {name} | {' | '.join(_number(told[key][kind]) for kind in ('all', *kinds))} |"
        for key, name in SIGNALS.items()
    )
    return f"""---
base_model: {shape["backbone"]}
library_name: rlhf-services
tags: [reward-model, rlhf, ensemble]
---

# Reward model {ref}

{shape["members"]} members on the first {shape["trunk_layers"]} layers of {shape["backbone"]}, each with adapters of
rank {shape["lora_r"]} on the last {shape["member_layers"]} of them and a head of its own. A score of 0 is the mean of
the training responses, 1 their standard deviation. The weights of the backbone are not in here.

## Quality

On {figures["eval_pairs"]} pairs over {measured["prompts"]} prompts that no member has seen:

| | |
|---|---|
| accuracy of the ensemble | {figures["accuracy_ensemble"]:.1%} (95 %: {low:.1%} to {high:.1%}) |
| accuracy of the members | {members} |
| preferring by length alone | {figures["accuracy_length_baseline"]:.1%} |
| expected calibration error | {calibration} |
| uncertainty of a pair foretells mistakes, AUROC | {_number(figures["auroc_uncertainty"])} (0.5: not at all) |
| of it, the members' disagreement | {_number(figures["auroc_disagreement"])} |
| how close the vote is, AUROC | {_number(figures["auroc_closeness"])} |
| accuracy by quarter, the most certain first | {quarters} |

Scores, median and middle half: {scores}. To tell preferred responses from themselves cut off, looped, shuffled, or
replaced by another language (AUROC):

| | all | {" | ".join(kinds)} |
|---|---|{"---|" * len(kinds)}
{signals}

## Data

{data["submitted"]} pairs were submitted; dropped: {dropped}. {trained["pairs"]} pairs over {trained["prompts"]} prompts
trained, of which {data["spoilt"]} have a spoilt response as the rejected one. The longer response is preferred in
{trained["longer_is_preferred"]:.0%} of them. Median lengths in tokens: {_medians(trained["tokens"])}. Texts over
{data["max_length"]} tokens lose the beginning of the prompt.

## Limits

It knows the taste of these pairs, on prompts and responses like theirs, and says nothing of truth or safety. Scores of
texts unlike them are guesses that the members may share: their disagreement is no proof of the contrary.
"""


def _medians(tokens: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {spread['median']:.0f}" for name, spread in tokens.items())


def _spread(name: str, values: Mapping[str, float]) -> str:
    return f"{name} {values['p50']:.2f} ({values['p25']:.2f} to {values['p75']:.2f})"


def _number(value: float | None) -> str:
    return "cannot be told" if value is None else f"{value:.2f}"
