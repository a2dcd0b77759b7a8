"""Rows generated together. They join when their prompt is computed and leave at the token that ends them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

import torch
from torch import Tensor

from rlhf.contracts.errors import GenerationFailed
from services.policy.engine.cache import SlotCache
from services.policy.engine.choice import choose
from services.policy.engine.forward import Forward
from services.policy.engine.history import History
from services.policy.engine.prefill import Prefill
from services.policy.engine.rows import Row, RowSettings


class Batch:
    """Rows that share an adapter, one forward pass a step for all of them.

    Attributes:
        rows: in the order of the cache's rows.
    """

    def __init__(self, forward: Forward, eos_ids: tuple[int, ...]) -> None:
        """Args: forward, computes; eos_ids, tokens that end a response."""
        self.rows: list[Row] = []
        self._forward = forward
        self._device = forward.shapes[0].device
        self._eos_ids, self._eos = frozenset(eos_ids), torch.tensor(eos_ids, device=self._device)
        self._cache = SlotCache(forward.shapes, 0, 0)
        self._logits = torch.empty(0)

    @torch.inference_mode()
    def join(self, prefill: Prefill) -> None:
        """Takes in the rows of a prefill that is done, each with its own copy of its prompt's cache."""
        here = [not row.abandoned.is_set() for row in prefill.rows]
        rows = [row for row, wanted in zip(prefill.rows, here, strict=True) if wanted]
        source = [prompt for prompt, wanted in zip(prefill.source, here, strict=True) if wanted]
        if not rows:
            return
        self._cache.take_in(prefill.cache, source)
        new = prefill.logits[torch.tensor(source, device=self._device)]
        self._logits = torch.cat([self._logits, new]) if self.rows else new
        self.rows += rows
        self._arrange()

    @torch.inference_mode()
    def step(self) -> None:
        """Chooses every row's next token, lets finished rows go, and computes the next logits. There is a row."""
        choice = choose(self._logits, self.rows, self._settings, self._history, self._eos)
        models: Iterable[float | None] = repeat(None, len(self.rows)) if choice.model is None else choice.model
        for row, token, behavior, model, top in zip(
            self.rows, choice.tokens, choice.behavior, models, choice.top, strict=True
        ):
            if behavior != behavior:  # NaN
                row.failure = GenerationFailed(describe_failure(row))
                continue
            if row.extras.top_logprobs:
                row.top_logprobs.append(top)
            row.add(token, behavior, model, self._eos_ids)
        tokens = torch.tensor(choice.tokens, device=self._device)
        order = self._let_go()
        if order is None:
            self._history.add(tokens)
        elif self.rows:
            tokens = tokens[torch.tensor(order, device=self._device)]
            self._arrange()
        if self.rows:
            self._compute(tokens)

    def _compute(self, tokens: Tensor) -> None:
        """The logits that follow these tokens [B]."""
        self._cache.make_column()
        lengths = self._history.ids.shape[1] - self._history.starts
        width = self._cache.window.width + 1
        mask = torch.arange(width, device=self._device) >= width - lengths[:, None]
        self._logits = self._forward.last(tokens[:, None], mask, lengths[:, None] - 1, self._cache)
        self._cache.advance(1)

    def _arrange(self) -> None:
        """What depends on which rows there are."""
        self._settings = RowSettings.of(self.rows, self._device)
        self._history = History(self.rows, self._device)

    def _let_go(self) -> list[int] | None:
        """Removes rows that are done: the last row takes the place of one that leaves, so that others stay put.

        Returns:
            Which of the former rows stand where now, or None when all stay.
        """
        done = [row.finish_reason is not None or row.failure is not None or row.abandoned.is_set() for row in self.rows]
        if not any(done):
            return None
        order = list(range(len(self.rows)))
        for hole in range(len(order) - 1, -1, -1):
            if done[hole]:
                last = order.pop()
                if hole < len(order):
                    order[hole] = last
                    self._cache.move_row(len(order), hole)
        self.rows = [self.rows[i] for i in order]
        # The cache has not seen the token that was just chosen.
        widest = max((len(row.prompt_ids) + len(row.token_ids) - 1 for row in self.rows), default=0)
        self._cache.keep(len(self.rows), widest)
        return order


def describe_failure(row: Row) -> str:
    """Why no token could be chosen for the row."""
    made = f"prompt {row.prompt_index}, sample {row.sample_index}: after {len(row.token_ids)} tokens"
    if row.sampling.no_repeat_ngram_size or row.sampling.min_new_tokens:
        return (
            f"{made} no token was allowed any more with no_repeat_ngram_size={row.sampling.no_repeat_ngram_size} and "
            f"min_new_tokens={row.sampling.min_new_tokens}; raise the first or lower the second"
        )
    return f"{made} the model's logits were not numbers; its adapter's weights are likely broken"
