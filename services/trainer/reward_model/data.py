"""Preference pairs on their way into training: filtered with counts, split by prompt, encoded once. No model here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import Prompt, prompt_key, turn_text
from rlhf.contracts.errors import InvalidInput, ScoringFailed
from rlhf.contracts.jobs import PreferencePair
from rlhf.evaluation.text_metrics import rep_n
from rlhf.lm.exchanges import Exchange, encode_exchange

Role = Literal["train", "validation", "evaluation"]
_Row = tuple[int, int, float, int, bool]
FILTERS = ("empty", "equal", "low_quality", "contradictory", "duplicate", "leaked")
"""Why a pair may be dropped before its length is known; see `filter_pairs`."""
MOST_REPEATED = 0.5
"""Share of a preferred response's 4-grams that may repeat an earlier one."""


@dataclass(frozen=True)
class Comparison:
    """One pair as texts.

    Attributes:
        key: the conversation as canonical JSON: what makes two prompts the same.
        prompt: the conversation.
        chosen: the preferred response.
        rejected: the other.
        margin: how much better chosen is, in the source's unit.
        heldout: True, False, or None when the source does not say.
        spoilt: nobody judged it; made by `augment`.
    """

    key: str
    prompt: Prompt
    chosen: str
    rejected: str
    margin: float
    heldout: bool | None
    spoilt: bool = False


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs of one role as indices into the exchanges of all roles.

    Attributes:
        chosen: [N] int64.
        rejected: [N] int64.
        margin: [N] float32.
        prompt: [N] int64, equal for pairs of one prompt.
        spoilt: [N] bool, see Comparison.
    """

    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    prompt: Tensor
    spoilt: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.chosen)

    @property
    def used(self) -> Tensor:
        """Indices of the exchanges in these pairs, each once, ascending."""
        return torch.tensor(sorted({*self.chosen.tolist(), *self.rejected.tolist()}))


def read_pairs(pairs: Sequence[PreferencePair]) -> list[Comparison]:
    """Pairs as texts.

    Raises:
        InvalidInput: a response is a conversation of more than one assistant turn; says which.
    """
    return [
        Comparison(
            key=prompt_key(pair.prompt),
            prompt=pair.prompt,
            chosen=turn_text(pair.chosen, f"pairs.{index}.chosen"),
            rejected=turn_text(pair.rejected, f"pairs.{index}.rejected"),
            margin=pair.margin,
            heldout=None if pair.split is None else pair.split == "heldout",
        )
        for index, pair in enumerate(pairs)
    ]


def filter_pairs(pairs: Sequence[Comparison]) -> tuple[list[Comparison], Counter[str]]:
    """Drops pairs that teach nothing or harm.

    Returns:
        The rest, and how many were dropped because they are `empty` (a response is blank), `equal` (both responses are
        the same), `low_quality` (the preferred response is no text, see `is_text`: whoever learns from it learns to
        like that), `contradictory` (another pair prefers the other way round: all of them go), `duplicate` (the same
        pair again), or `leaked` (marked for training, but its prompt is held out too).
    """
    dropped: Counter[str] = Counter()
    judged = Counter((pair.key, pair.chosen.strip(), pair.rejected.strip()) for pair in pairs)
    heldout = {pair.key for pair in pairs if pair.heldout}
    kept: list[Comparison] = []
    seen: set[tuple[str, str, str]] = set()
    for pair in pairs:
        chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
        if not chosen or not rejected:
            dropped["empty"] += 1
        elif chosen == rejected:
            dropped["equal"] += 1
        elif not is_text(chosen):
            dropped["low_quality"] += 1
        elif (pair.key, rejected, chosen) in judged:
            dropped["contradictory"] += 1
        elif (pair.key, chosen, rejected) in seen:
            dropped["duplicate"] += 1
        elif pair.key in heldout and not pair.heldout:
            dropped["leaked"] += 1
        else:
            seen.add((pair.key, chosen, rejected))
            kept.append(pair)
    return kept, dropped


def is_text(response: str) -> bool:
    """Whether a response has a letter or digit, no U+FFFD, which a wrong decoding leaves, and is not mostly a loop.

    Songs, code and tables repeat up to half of their 4-grams (3 of 3,290 good answers of AlpacaEval more than that).
    """
    return any(c.isalnum() for c in response) and "\ufffd" not in response and rep_n(response, 4) <= MOST_REPEATED


def split_by_prompt(pairs: Sequence[Comparison], *, fraction: float, seed: int) -> list[Role]:
    """Gives every pair a role; all pairs of a prompt get the same.

    Held-out pairs evaluate. Of the other prompts, `fraction` validate (early stopping, temperature). Where nothing is
    marked held out, as many evaluate; a prompt that is marked for training never does.

    Args:
        pairs: filtered.
        fraction: share of the prompts.
        seed: draws which.

    Raises:
        InvalidInput: too few prompts for a role; says how many there are.
    """
    roles: dict[str, Role] = {pair.key: "evaluation" for pair in pairs if pair.heldout}
    fixed = {pair.key for pair in pairs if pair.heldout is False}
    given = bool(roles)
    free = sorted({pair.key for pair in pairs} - set(roles), key=lambda key: _draw(key, seed))
    count = max(1, round(fraction * len(free)))
    if not given:
        chosen = [key for key in free if key not in fixed][:count]
        roles.update(dict.fromkeys(chosen, "evaluation"))
        free = [key for key in free if key not in roles]
    roles.update(dict.fromkeys(free[:count], "validation"))
    roles.update(dict.fromkeys(free[count:], "train"))
    result = [roles[pair.key] for pair in pairs]
    missing = {"train", "validation", "evaluation"} - set(result)
    if missing:
        raise InvalidInput(
            f"{len(roles)} distinct prompts with usable pairs leave none for {', '.join(sorted(missing))}; send pairs "
            "over at least 3 prompts, or 2 beside those with split `heldout`"
        )
    return result


def encode_pairs(
    pairs: Sequence[Comparison],
    roles: Sequence[Role],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
) -> tuple[list[Exchange], dict[Role, EncodedPairs], int]:
    """Encodes every distinct prompt and response once.

    Returns:
        The exchanges, the pairs by role, and how many pairs were dropped since a response is too long.
    """
    exchanges: list[Exchange] = []
    index: dict[tuple[str, str], int | None] = {}
    rows: dict[Role, list[_Row]] = {"train": [], "validation": [], "evaluation": []}
    prompts: dict[str, int] = {}
    too_long = 0
    for pair, role in zip(pairs, roles, strict=True):
        sides = []
        for response in (pair.chosen, pair.rejected):
            if (pair.key, response) not in index:
                try:
                    exchanges.append(encode_exchange(tokenizer, pair.prompt, response, max_length=max_length))
                    index[pair.key, response] = len(exchanges) - 1
                except ScoringFailed:
                    index[pair.key, response] = None
            sides.append(index[pair.key, response])
        if sides[0] is None or sides[1] is None:
            too_long += 1
        else:
            prompt = prompts.setdefault(pair.key, len(prompts))
            rows[role].append((sides[0], sides[1], pair.margin, prompt, pair.spoilt))
    if not all(rows.values()):
        empty = next(role for role, found in rows.items() if not found)
        raise InvalidInput(
            f"all pairs for {empty} have a response over max_length={max_length} tokens; raise max_length or send "
            "shorter responses"
        )
    return exchanges, {role: _as_tensors(found) for role, found in rows.items()}, too_long


def _as_tensors(rows: list[_Row]) -> EncodedPairs:
    chosen, rejected, margin, prompt, spoilt = (torch.tensor(column) for column in zip(*rows, strict=True))
    return EncodedPairs(chosen, rejected, margin.float(), prompt, spoilt)


def _draw(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
