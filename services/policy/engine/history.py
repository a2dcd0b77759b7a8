"""What every row of a batch has said so far, as a tensor for the penalties."""

from __future__ import annotations

import torch
from torch import Tensor

from services.policy.engine.rows import Row

COLUMNS_AT_A_TIME = 64


class History:
    """Prompt and response of each row, padded on the left by the row's first token, which changes no penalty.

    Attributes:
        starts: [B] first column of each row that is not a pad.
    """

    def __init__(self, rows: list[Row], device: torch.device) -> None:
        """Args: rows, at least one; device, of the tensors."""
        said = [row.prompt_ids + row.token_ids for row in rows]
        self._columns = max(len(ids) for ids in said)
        self.starts = torch.tensor([self._columns - len(ids) for ids in said], device=device)
        padded = torch.tensor([[ids[0]] * (self._columns - len(ids)) + ids for ids in said], device=device)
        self._ids = self._with_room(padded)

    @property
    def ids(self) -> Tensor:
        """[B, L] token ids."""
        return self._ids[:, : self._columns]

    def add(self, tokens: Tensor) -> None:
        """Args: tokens, [B] each row's next."""
        if self._columns == self._ids.shape[1]:
            self._ids = self._with_room(self._ids)
        self._ids[:, self._columns] = tokens
        self._columns += 1

    @staticmethod
    def _with_room(ids: Tensor) -> Tensor:
        return torch.cat([ids, ids.new_zeros(len(ids), COLUMNS_AT_A_TIME)], 1)
