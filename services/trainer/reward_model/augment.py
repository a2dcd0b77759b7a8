"""Extra training pairs: a preferred response against itself spoilt. They teach what no rater was asked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from services.trainer.ppo.schedule import derive_seed
from services.trainer.reward_model.data import Comparison, Role
from services.trainer.reward_model.degenerate import LEAST_WORDS, SPOILT


def spoilt_pairs(pairs: Sequence[Comparison], roles: Sequence[Role], *, fraction: float, seed: int) -> list[Comparison]:
    """Pairs of training responses and what `spoil` makes of them, at most `fraction` × the training pairs.

    Args:
        pairs: filtered.
        roles: of the pairs; validation and evaluation stay as people judged them.
        fraction: in [0, 1].
        seed: draws which, and how each is spoilt.
    """
    chosen = {(pair.key, pair.chosen): pair for pair, role in zip(pairs, roles, strict=True) if role == "train"}
    usable = [pair for pair in chosen.values() if len(pair.chosen.split()) >= LEAST_WORDS]
    draw = random.Random(derive_seed("spoil", seed))
    count = min(len(usable), round(fraction * sum(role == "train" for role in roles)))
    return [
        replace(pair, rejected=spoil(pair.chosen, draw), margin=0.0, spoilt=True) for pair in draw.sample(usable, count)
    ]


def spoil(text: str, draw: random.Random) -> str:
    """Cuts a text off, lets it loop, or shuffles its words, each as often; never gives the text itself.

    Args:
        text: of six words or more.
        draw: decides.
    """
    return SPOILT[draw.choice(tuple(SPOILT))](text, draw)
