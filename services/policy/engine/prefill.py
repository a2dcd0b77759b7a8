"""The computation of prompts, in parts that are small enough to let decoding go on in between."""

from __future__ import annotations

import torch
from torch import Tensor

from services.policy.engine.cache import SlotCache
from services.policy.engine.forward import Forward
from services.policy.engine.rows import Row


class Prefill:
    """Distinct prompts computed side by side, padded on the left; rows with the same prompt share one.

    Attributes:
        rows: that wait for it.
        prompts: token ids, P of them.
        source: for each row, which of the prompts is its.
        reported: whether a row wants the log-probabilities of its prompt.
        cache: of the prompts; complete when `done`.
        logits: [P, V] after each prompt's last token; there when `done`.
    """

    logits: Tensor

    @torch.inference_mode()
    def __init__(self, forward: Forward, rows: list[Row]) -> None:
        """Args: forward, computes; rows, at least one."""
        distinct = {ids: i for i, ids in enumerate(dict.fromkeys(tuple(row.prompt_ids) for row in rows))}
        self.rows, self.prompts = rows, list(distinct)
        self.source = [distinct[tuple(row.prompt_ids)] for row in rows]
        self._forward = forward
        device = forward.shapes[0].device
        self._width = max(len(ids) for ids in distinct)
        # A pad is any token: it is masked.
        padded = [[0] * (self._width - len(ids)) + list(ids) for ids in distinct]
        starts = torch.tensor([self._width - len(ids) for ids in distinct], device=device)
        self._ids = torch.tensor(padded, device=device)
        self._mask = torch.arange(self._width, device=device) >= starts[:, None]
        self._positions = (self._mask.cumsum(-1) - 1).clamp_min(0)
        self.reported = any(row.extras.prompt_logprobs for row in rows)
        self._logprobs: list[Tensor] = []
        self.cache = SlotCache(forward.shapes, len(distinct), self._width)
        self.cache.window.rows = len(distinct)

    @property
    def done(self) -> bool:
        """Whether all of it is computed."""
        return self.cache.window.end == self._width

    @property
    def begun(self) -> bool:
        """Whether any column is there."""
        return self.cache.window.end > 0

    @torch.inference_mode()
    def take_over(self, source: SlotCache, columns: int) -> None:
        """Begins with columns that another cache has.

        Args:
            source: one row, whose first column is a first token; every prompt begins with the tokens that it needs.
            columns: of this cache, pads included; see `known_columns`.
        """
        for row, ids in enumerate(self.prompts):
            start = self._width - len(ids)
            if columns > start:
                self.cache.copy_columns((row, start), source, (0, 0), columns - start)
        self.cache.advance(columns)

    @torch.inference_mode()
    def copy_prompt(self, prompt: int) -> SlotCache:
        """The cache of one prompt by itself, without pads, once it is done."""
        length = len(self.prompts[prompt])
        copy = SlotCache(self._forward.shapes, 1, length)
        copy.copy_columns((0, 0), self.cache, (prompt, self._width - length), length)
        copy.window.rows, copy.window.end = 1, length
        return copy

    @torch.inference_mode()
    def advance(self, tokens: int) -> None:
        """Computes the next columns.

        Args:
            tokens: at most so many (pads count), but one column at least.
        """
        first = self.cache.window.end
        last = min(self._width, first + max(1, tokens // len(self._ids)))
        part = (self._ids[:, first:last], self._mask[:, :last], self._positions[:, first:last], self.cache)
        if self.reported:
            logits = self._forward.every(*part)
            self.logits = logits[:, -1].clone()
            following = self._ids[:, first + 1 : last + 1]
            logprobs = logits[:, : following.shape[1]].log_softmax(-1)
            self._logprobs.append(logprobs.gather(2, following[:, :, None])[:, :, 0])
        else:
            self.logits = self._forward.last(*part)
        self.cache.advance(last - first)
        if self.done and self.reported:
            self._report()

    def _report(self) -> None:
        """Tells the rows that want them the log-probabilities of their prompts' tokens after the first."""
        logprobs = torch.cat(self._logprobs, 1).tolist()
        for row, prompt in zip(self.rows, self.source, strict=True):
            if row.extras.prompt_logprobs:
                row.prompt_logprobs = logprobs[prompt][self._width - len(row.prompt_ids) :]
