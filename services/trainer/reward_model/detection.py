"""Whether an ensemble tells degenerate text from ordinary responses: the texts it is shown, and the figures."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.errors import ScoringFailed
from rlhf.evaluation.preferences import Floats, auroc
from rlhf.lm.ensemble import RewardEnsemble
from rlhf.lm.exchanges import Exchange, encode_exchange
from rlhf.lm.readings import Readings
from services.trainer.ppo.schedule import derive_seed
from services.trainer.reward_model.data import Comparison, EncodedPairs, Role
from services.trainer.reward_model.degenerate import DEGENERATE, LEAST_WORDS
from services.trainer.reward_model.measurement import describe_scores

MOST_RESPONSES = 64
"""Held-out responses that are spoilt, each in every way: a look at so many costs seconds."""


def degenerate_exchanges(
    pairs: Sequence[Comparison],
    roles: Sequence[Role],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    seed: int,
) -> list[tuple[str, Exchange]]:
    """Preferred held-out responses, each spoilt in every way, with the name of the way.

    Responses under LEAST_WORDS words are left out, and so is what is too long once it is spoilt.

    Args:
        pairs: filtered.
        roles: of the pairs.
        tokenizer: of the backbone.
        max_length: of an exchange, tokens.
        seed: draws which, and how each is spoilt.
    """
    held = {(pair.key, pair.chosen): pair for pair, role in zip(pairs, roles, strict=True) if role == "evaluation"}
    usable = [pair for pair in held.values() if len(pair.chosen.split()) >= LEAST_WORDS]
    draw = random.Random(derive_seed("degenerate", seed))
    made: list[tuple[str, Exchange]] = []
    for pair in draw.sample(usable, min(len(usable), MOST_RESPONSES)):
        for kind, spoil in DEGENERATE.items():
            try:
                text = spoil(pair.chosen, draw)
                made.append((kind, encode_exchange(tokenizer, pair.prompt, text, max_length=max_length)))
            except ScoringFailed:
                continue
    return made


def measure_responses(
    ensemble: RewardEnsemble,
    readings: Readings,
    heldout: EncodedPairs,
    degenerate: Sequence[tuple[str, Exchange]],
    **how: Any,
) -> dict[str, Any]:
    """How the scores of held-out responses lie, and how well preferred ones are told from degenerate text.

    Args:
        ensemble: trained.
        readings: that heldout indexes.
        heldout: the pairs that measure.
        degenerate: texts with what was done to each.
        how: degenerate texts are read, see `read_exchanges`.
    """
    chosen = _signals(ensemble, readings, torch.tensor(sorted(set(heldout.chosen.tolist()))))
    if degenerate:
        texts = ensemble.read([exchange for _, exchange in degenerate], **how)
        spoilt = _signals(ensemble, texts, torch.arange(len(degenerate)))
    else:
        spoilt = {name: values[:0] for name, values in chosen.items()}
    used = heldout.used
    place = {index: column for column, index in enumerate(used.tolist())}
    columns = ([place[index] for index in side.tolist()] for side in (heldout.chosen, heldout.rejected))
    return {
        "scores": describe_scores(ensemble.standardise(ensemble.raw_scores_of(readings, used)).cpu(), *columns),
        "degenerate": detection_figures(chosen, spoilt, [kind for kind, _ in degenerate]),
    }


def _signals(ensemble: RewardEnsemble, readings: Readings, indices: Tensor) -> dict[str, Floats]:
    scores = ensemble.standardise(ensemble.raw_scores_of(readings, indices)).double().cpu()
    return {
        "novelty": ensemble.novelty_of(readings, indices).double().cpu().numpy(),
        "uncertainty": scores.std(0, correction=0).numpy(),
        "low_score": -scores.mean(0).numpy(),
    }


def detection_figures(
    ordinary: Mapping[str, Floats], degenerate: Mapping[str, Floats], kinds: Sequence[str]
) -> dict[str, Any]:
    """How well each signal tells degenerate text, by AUROC: all kinds together, and each beside the ordinary ones.

    Args:
        ordinary: [N] values of ordinary responses by signal; degenerate text should have higher ones.
        degenerate: [M] values of degenerate text by signal.
        kinds: M names of what was done to each.
    """
    kind = np.array(kinds, dtype=str)
    told: dict[str, Any] = {"texts": {name: int((kind == name).sum()) for name in DEGENERATE}}
    for signal, usual in ordinary.items():
        told[f"auroc_{signal}"] = {"all": _auroc(usual, degenerate[signal])} | {
            name: _auroc(usual, degenerate[signal][kind == name]) for name in DEGENERATE
        }
    return told


def _auroc(low: Floats, high: Floats) -> float | None:
    return auroc(np.concatenate([low, high]), np.arange(len(low) + len(high)) >= len(low))
