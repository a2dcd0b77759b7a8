"""Which adapters the other server computes with: loaded and checked when first named, the least used let go."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from services.policy.engine.instruments import ADAPTERS

Change = Callable[[str], Awaitable[None]]


class RemoteAdapters:
    """Belongs to one event loop; other threads only read `ready`.

    Attributes:
        ready: those that the server computes with, the one used last at the end.
    """

    def __init__(self, load: Change, unload: Change, most: int) -> None:
        """Args: load, makes the server compute with `job@version` and checks it; unload, undoes it; most, at once."""
        self._load, self._unload, self._most = load, unload, most
        self._uses: OrderedDict[str, int] = OrderedDict()
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()
        self.ready: list[str] = []

    @asynccontextmanager
    async def held(self, ref: str | None) -> AsyncIterator[None]:
        """The server computes with this adapter as long as the block runs.

        Raises:
            ServiceError: it cannot be loaded; who names it again has it tried again.
        """
        if ref is None:
            yield
            return
        # In turn, so that who came later does not keep adapters loaded whose place an earlier one waits for.
        async with self._turn:
            if ref not in self._uses:
                await self._make_room()
                await self._load(ref)
            self._uses[ref] = self._uses.get(ref, 0) + 1
            self._uses.move_to_end(ref)
            self._tell()
        try:
            yield
        finally:
            if self._uses.get(ref):
                self._uses[ref] -= 1
            self._released.set()

    def forget(self, ref: str) -> None:
        """The server turns out not to have it: who names it next has it loaded."""
        self._uses.pop(ref, None)
        self._tell()

    async def _make_room(self) -> None:
        while len(self._uses) >= self._most:
            unused = next((ref for ref, uses in self._uses.items() if uses == 0), None)
            if unused is None:
                self._released.clear()
                await self._released.wait()
                continue
            await self._unload(unused)
            del self._uses[unused]
            self._tell()

    def _tell(self) -> None:
        self.ready = list(self._uses)
        ADAPTERS.set(len(self.ready))
