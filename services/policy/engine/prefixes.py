"""Beginnings of prompts that are computed already, by adapter: prompts that begin alike take them over.

Prompts of one job share their system prompt, and a conversation begins as its last turn did. Keys and values depend on
what stands before and on the weights alone, so they are the same in every prompt, but for the rounding of kernels that
compute other numbers of columns at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from services.policy.engine.cache import SlotCache
from services.policy.engine.forward import Forward
from services.policy.engine.prefill import Prefill

Prompt = tuple[int, ...]
LEAST_COLUMNS = 8
"""Fewer are computed as fast as copied."""
MOST_PREFIXES = 16
"""Each is compared with every new prompt."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """Tokens and their cache: one row, the first token in its column 0."""

    adapter: str | None
    ids: Prompt
    cache: SlotCache


class PrefixLibrary:
    """Belongs to the engine's thread. The one used longest ago goes first."""

    def __init__(self, forward: Forward, max_tokens: int) -> None:
        """Args: forward, computes; max_tokens, kept in all; 0 keeps nothing."""
        self._forward, self._max_tokens = forward, max_tokens
        self._kept: list[Prefix] = []

    @torch.inference_mode()
    def begin(self, adapter: str | None, prefill: Prefill) -> int:
        """Gives a prefill what its prompts share with what is kept, or with each other. The adapter is active.

        Returns:
            How many columns it need not compute.
        """
        if not self._max_tokens or prefill.reported:
            return 0  # who asks for the prompts' log-probabilities needs every column computed
        best, columns = self._find(adapter, prefill.prompts)
        common = shared_ids(prefill.prompts)[: self._max_tokens] if len(prefill.prompts) > 1 else ()
        if len(common) > max(columns, LEAST_COLUMNS):
            best = self._keep(Prefix(adapter, common, self._compute(common)))
            columns = len(common)
        if best is None or columns < LEAST_COLUMNS:
            return 0
        self._kept.remove(best)
        self._kept.append(best)
        prefill.take_over(best.cache, columns)
        return columns

    def remember(self, adapter: str | None, prefill: Prefill) -> None:
        """Keeps the first of the prompts of a prefill that is done."""
        ids = prefill.prompts[0]
        known = any(kept.adapter == adapter and kept.ids[: len(ids)] == ids for kept in self._kept)
        if LEAST_COLUMNS < len(ids) <= self._max_tokens and not known:
            self._keep(Prefix(adapter, ids, prefill.copy_prompt(0)))

    def _find(self, adapter: str | None, prompts: Sequence[Prompt]) -> tuple[Prefix | None, int]:
        found = [(known_columns(prompts, kept.ids), kept) for kept in self._kept if kept.adapter == adapter]
        columns, best = max(found, key=lambda pair: pair[0], default=(0, None))
        return best, columns

    def _keep(self, prefix: Prefix) -> Prefix:
        # What this one begins with need not be kept besides.
        self._kept = [
            kept for kept in self._kept if kept.adapter != prefix.adapter or prefix.ids[: len(kept.ids)] != kept.ids
        ]
        self._kept.append(prefix)
        while len(self._kept) > MOST_PREFIXES or sum(len(kept.ids) for kept in self._kept) > self._max_tokens:
            del self._kept[0]
        return prefix

    def _compute(self, ids: Prompt) -> SlotCache:
        device = self._forward.shapes[0].device
        cache = SlotCache(self._forward.shapes, 1, len(ids))
        cache.window.rows = 1
        tokens = torch.tensor([ids], device=device)
        positions = torch.arange(len(ids), device=device)[None]
        self._forward.last(tokens, torch.ones_like(tokens, dtype=torch.bool), positions, cache)
        cache.advance(len(ids))
        return cache


def common_length(a: Prompt, b: Prompt) -> int:
    """How many tokens two prompts begin with alike; by halves, since comparing slices is fast."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def shared_ids(prompts: Sequence[Prompt]) -> Prompt:
    """What all of them begin with."""
    return prompts[0][: min(common_length(prompts[0], prompt) for prompt in prompts)]


def known_columns(prompts: Sequence[Prompt], ids: Prompt) -> int:
    """How many columns of a prefill of these prompts, padded on the left, are known from those of `ids`.

    A prompt that is shorter than the longest by s columns has s pads first, so that it needs s tokens less to be known
    up to a column. The last column is always computed: it gives the logits.
    """
    longest = max(map(len, prompts))
    return min(longest - 1, *(common_length(prompt, ids) + longest - len(prompt) for prompt in prompts))
