"""Which waiting rows begin next: first come, first served, within the limits. Pure bookkeeping, no tensors."""

from __future__ import annotations

from collections.abc import Iterable

from services.policy.engine.requests import EngineRequest, Limits
from services.policy.engine.rows import Row


def reserved_width(rows: Iterable[Row]) -> int:
    """Tokens that the widest of these rows can reach: prompt and response."""
    return max((len(row.prompt_ids) + row.sampling.max_new_tokens for row in rows), default=0)


def reserved_tokens(batches: Iterable[list[Row]]) -> int:
    """Tokens that the caches of batches can reach."""
    return sum(len(rows) * reserved_width(rows) for rows in batches)


class Space:
    """What is left of the limits beside the rows that run, if more rows of one adapter join them."""

    def __init__(self, running: dict[str | None, list[Row]], adapter: str | None, limits: Limits) -> None:
        """Args: running, rows being generated, by adapter; adapter, of the rows that may join; limits."""
        own = running.get(adapter, [])
        self._limits = limits
        self._others = reserved_tokens(rows for key, rows in running.items() if key != adapter)
        self._rows, self._all_rows = len(own), sum(len(rows) for rows in running.values())
        self._width = reserved_width(own)

    def admit(self, row: Row) -> bool:
        """Whether this row fits too; it counts from then on. One row always fits when nothing runs."""
        width = max(self._width, reserved_width([row]))
        tokens = self._others + (self._rows + 1) * width
        full = self._all_rows + 1 > self._limits.max_batch_rows or tokens > self._limits.max_batch_tokens
        if full and self._all_rows > 0:
            return False
        self._width, self._rows, self._all_rows = width, self._rows + 1, self._all_rows + 1
        return True


def take_rows(queue: Iterable[EngineRequest], running: dict[str | None, list[Row]], limits: Limits) -> list[Row]:
    """Takes the rows whose prompts are computed together next out of their requests' `waiting`.

    Args:
        queue: requests whose adapter is ready, oldest first, each with rows that wait.
        running: rows being generated, by adapter.
        limits: of rows and tokens.

    Returns:
        Rows of one adapter, that of the oldest request. The first row that does not fit ends the search, so that small
        requests never starve a large one.
    """
    requests = list(queue)
    if not requests:
        return []
    adapter = requests[0].adapter
    space = Space(running, adapter, limits)
    taken: list[Row] = []
    prompts: set[tuple[int, ...]] = set()
    for request in requests:
        while request.adapter == adapter and request.waiting:
            row = request.waiting[0]
            after = prompts | {tuple(row.prompt_ids)}
            computed = len(after) * max(len(prompt) for prompt in after)
            if (taken and computed > limits.max_prefill_tokens) or not space.admit(row):
                return taken
            prompts = after
            taken.append(request.waiting.popleft())
    return taken
