"""What the pairs of a job are: how many were used for what, how long they are, what was dropped. Becomes data.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlhf.lm.exchanges import Exchange
from services.trainer.reward_model.data import EncodedPairs, Role


def describe_data(
    submitted: int,
    dropped: Mapping[str, int],
    exchanges: Sequence[Exchange],
    pairs: Mapping[Role, EncodedPairs],
    *,
    spoilt: int,
    max_length: int,
) -> dict[str, Any]:
    """The content of data.json. Lengths are in tokens, the EOS that closes a response included.

    Args:
        submitted: pairs of the request.
        dropped: pairs by the reason why they are not used.
        exchanges: every distinct prompt and response.
        pairs: by role, as indices of exchanges.
        spoilt: training pairs that were added, see `augment`.
        max_length: of an exchange.
    """
    return {
        "submitted": submitted,
        "dropped": dict(dropped),
        "spoilt": spoilt,
        "max_length": max_length,
        "roles": {role: _describe(own, exchanges) for role, own in pairs.items()},
    }


def _describe(pairs: EncodedPairs, exchanges: Sequence[Exchange]) -> dict[str, Any]:
    chosen = [len(exchanges[i].response_ids) for i in pairs.chosen.tolist()]
    rejected = [len(exchanges[i].response_ids) for i in pairs.rejected.tolist()]
    used = [exchanges[i] for i in pairs.used.tolist()]
    prompts = {exchange.prompt_ids for exchange in used}
    longer = [(a > b) + 0.5 * (a == b) for a, b in zip(chosen, rejected, strict=True)]
    return {
        "pairs": len(pairs),
        "prompts": len(prompts),
        # A rule as simple as this must not explain the labels: compare it with the accuracy.
        "longer_is_preferred": float(np.mean(longer)),
        "truncated": sum(exchange.truncated for exchange in used),
        "tokens": {
            "prompt": _spread(map(len, prompts)),
            "chosen": _spread(chosen),
            "rejected": _spread(rejected),
        },
    }


def _spread(lengths: Iterable[int]) -> dict[str, float]:
    low, median, high, most = np.percentile(list(lengths), [0, 50, 95, 100])
    return {"least": float(low), "median": float(median), "p95": float(high), "most": float(most)}
