"""The key-value cache of a batch: written in place, rows aligned at their last column.

Every row's newest token stands in the same column, so a step appends one column for all, and a row may join or leave at
any time: one that joins is copied in front of that column, one that leaves is overwritten by the last row. It is a
`transformers` cache, so a model's own attention code reads it too. Growing by concatenation, as the library's default
does, copies the whole cache on every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

COLUMNS_AT_LEAST = 64


@dataclass(frozen=True)
class LayerShape:
    """What one layer caches for each token. Sizes of keys and values differ in some families."""

    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    device: torch.device


@torch.inference_mode()
def layer_shapes(model: PreTrainedModel) -> list[LayerShape]:
    """Asks the model by a forward pass over one token."""
    cache = DynamicCache()
    model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), past_key_values=cache, use_cache=True)
    return [
        LayerShape(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3], layer.keys.dtype, layer.keys.device)
        for layer in cache.layers
    ]


@dataclass
class Window:
    """Which part of the buffers is in use: the first `rows` rows, columns `start` to `end`. All layers share it."""

    rows: int
    start: int
    end: int

    @property
    def width(self) -> int:
        """Columns in use."""
        return self.end - self.start


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: [rows, heads, columns, size], of which the window is in use."""

    is_compileable = False
    is_sliding = False

    def __init__(self, shape: LayerShape, rows: int, columns: int, window: Window) -> None:
        """Makes room; nothing is in use yet."""
        super().__init__()
        self._window = window
        self.keys, self.values = (
            torch.zeros(rows, shape.heads, columns, size, dtype=shape.dtype, device=shape.device)
            for size in (shape.key_size, shape.value_size)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes the columns that come next; returns views of everything up to and with them."""
        rows, start, end = self._window.rows, self._window.start, self._window.end
        after = end + key_states.shape[2]
        self.keys[:rows, :, end:after] = key_states
        self.values[:rows, :, end:after] = value_states
        return self.keys[:rows, :, start:after], self.values[:rows, :, start:after]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the buffers exist from the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what attention sees when query_length columns come next."""
        return self._window.width + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self._window.width

    def get_max_length(self) -> int:
        """Columns of the buffer."""
        return int(self.keys.shape[2])


class SlotCache(Cache):  # type: ignore[misc]
    """One `SlotLayer` a model layer, and the window that they share."""

    layers: list[SlotLayer]

    def __init__(self, shapes: list[LayerShape], rows: int, columns: int) -> None:
        """Args: shapes, of the layers; rows and columns to begin with."""
        self.window = Window(0, 0, 0)
        self._rows, self._columns = rows, columns
        super().__init__(layers=[SlotLayer(shape, rows, columns, self.window) for shape in shapes])

    def advance(self, columns: int) -> None:
        """The columns that `update` wrote are in use from now on."""
        self.window.end += columns

    def take_in(self, other: SlotCache, source: list[int]) -> None:
        """Appends rows that hold what rows `source` of the other cache hold, their last columns aligned with ours."""
        window, width = self.window, other.window.width
        if window.rows == 0:
            window.start = window.end = 0
        self._make_room(window.rows + len(source), max(width, window.end))
        if width > window.end:
            self._slide(width - window.end)
        first, last = window.rows, window.rows + len(source)
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                # Masked columns count nothing, but zero times what an earlier row left there must not be NaN.
                buffer[first:last, :, : window.end - width] = 0
        for row, origin in zip(range(first, last), source, strict=True):
            self.copy_columns((row, window.end - width), other, (origin, other.window.start), width)
        window.rows = last
        window.start = min(window.start, window.end - width) if first else window.end - width

    def make_column(self) -> None:
        """Makes sure that one more column can be written: moves what is in use to the left, or grows."""
        if self.window.end < self._columns:
            return
        if self.window.start >= self._columns // 4:
            self._slide(-self.window.start)
        else:
            self._make_room(self._rows, self._columns + 1)

    def move_row(self, source: int, target: int) -> None:
        """Overwrites row `target` by row `source`."""
        start, end = self.window.start, self.window.end
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[target, :, start:end] = buffer[source, :, start:end]

    def copy_columns(self, target: tuple[int, int], other: SlotCache, source: tuple[int, int], columns: int) -> None:
        """Copies columns of one row of another cache. Args: target and source, row and first column; columns."""
        (row, first), (origin, begin) = target, source
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.keys[row, :, first : first + columns] = theirs.keys[origin, :, begin : begin + columns]
            mine.values[row, :, first : first + columns] = theirs.values[origin, :, begin : begin + columns]

    def keep(self, rows: int, width: int) -> None:
        """Only the first so many rows are in use from now on, and of them the last `width` columns."""
        self.window.rows, self.window.start = rows, self.window.end - width

    def _slide(self, columns: int) -> None:
        """Moves what is in use to the right by so many columns (to the left when negative)."""
        rows, start, end = self.window.rows, self.window.start, self.window.end
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[:rows, :, start + columns : end + columns] = buffer[:rows, :, start:end].clone()
        self.window.start, self.window.end = start + columns, end + columns

    def _make_room(self, rows: int, columns: int) -> None:
        """Grows the buffers, doubling, one layer at a time."""
        if rows <= self._rows and columns <= self._columns:
            return
        self._rows = self._rows if rows <= self._rows else max(rows, 2 * self._rows)
        self._columns = self._columns if columns <= self._columns else max(columns, 2 * self._columns, COLUMNS_AT_LEAST)
        used, start, end = self.window.rows, self.window.start, self.window.end
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros(self._rows, old.shape[1], self._columns, old.shape[3])
                new[:used, :, start:end] = old[:used, :, start:end]
                setattr(layer, name, new)
