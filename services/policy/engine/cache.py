"""The key-value cache of a batch: written in place into buffers made once, rows removed by moving one row.

It is a `transformers` cache, so the model's own attention code reads it. Growing by concatenation, as the library's
default does, copies the whole cache on every step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class BufferedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: [rows, heads, columns, head size], of which the first so many are in use."""

    is_compileable = False
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, room: int, source: Tensor) -> None:
        """Makes room for the columns to come and copies each row's prompt.

        Args:
            keys: [P, H, L, D], one entry a distinct prompt.
            values: the same.
            room: columns of the buffer, prompt included.
            source: [B] which prompt each row continues.
        """
        super().__init__()
        shape = (len(source), keys.shape[1], room, keys.shape[3])
        self.rows, self.columns = len(source), keys.shape[2]
        self.keys = keys.new_empty(shape)
        # Head sizes of keys and values differ in some families.
        self.values = values.new_empty((*shape[:3], values.shape[3]))
        torch.index_select(keys, 0, source, out=self.keys[:, :, : self.columns])
        torch.index_select(values, 0, source, out=self.values[:, :, : self.columns])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Appends columns for all rows in use; returns views of everything up to and with them."""
        end = self.columns + key_states.shape[2]
        self.keys[: self.rows, :, self.columns : end] = key_states
        self.values[: self.rows, :, self.columns : end] = value_states
        self.columns = end
        return self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]

    def move_row(self, source: int, target: int) -> None:
        """Overwrites row `target` by row `source`."""
        self.keys[target, :, : self.columns] = self.keys[source, :, : self.columns]
        self.values[target, :, : self.columns] = self.values[source, :, : self.columns]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the buffers exist from the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what attention sees when query_length columns come next."""
        return self.columns + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.columns

    def get_max_length(self) -> int:
        """Columns of the buffer."""
        return int(self.keys.shape[2])


class BatchCache(Cache):  # type: ignore[misc]
    """One `BufferedLayer` a model layer."""

    layers: list[BufferedLayer]

    def __init__(self, prefilled: Cache, room: int, source: Tensor) -> None:
        """Args: prefilled, cache of the prompts, emptied here; room, columns in all; source, [B] each row's prompt."""
        layers = []
        for layer in prefilled.layers:
            layers.append(BufferedLayer(layer.keys, layer.values, room, source))
            # Let go of at once, so that the prompts' cache is never in memory twice as a whole.
            layer.keys = layer.values = None
        super().__init__(layers=layers)

    def move_row(self, source: int, target: int) -> None:
        """Overwrites row `target` by row `source` in every layer."""
        for layer in self.layers:
            layer.move_row(source, target)

    def keep_rows(self, rows: int) -> None:
        """Only the first so many rows are in use from now on."""
        for layer in self.layers:
            layer.rows = rows
