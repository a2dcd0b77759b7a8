"""The reward model of requests that name none, and how another one takes its place."""

from __future__ import annotations

import asyncio
import logging

from services.reward.scorer import Scorer

log = logging.getLogger(__name__)


class DefaultModel:
    """Begins as the setting, and is what was loaded last for as long as the process lives. Not kept on disk.

    Attributes:
        ref: `job@version`, or None; read by the event loop, changed on the scorer's thread.
    """

    def __init__(self, ref: str | None) -> None:
        """Args: ref, of the settings."""
        self.ref = ref
        # One load at a time: each holds a bundle more in memory, and a thread that others wait for.
        self._turn = asyncio.Lock()

    async def replace(self, scorer: Scorer, ref: str) -> str | None:
        """Reads and verifies a reward model beside the scorer, then swaps it in between two of its batches.

        Returns:
            The default that it replaced.

        Raises:
            NotFound: no such panel or bundle.
            Conflict: it is no bundle, damaged, or made for another backbone; says which file and why.
            Overloaded, Unavailable: the scorer takes no work now.
        """
        async with self._turn:
            candidate = await asyncio.to_thread(scorer.library.read, ref)

            def swap() -> str | None:
                if candidate is not None:
                    scorer.library.adopt(ref, candidate)
                replaced, self.ref = self.ref, ref
                return replaced

            replaced = await asyncio.wrap_future(scorer.call(swap))
        log.info("default replaced", extra={"reward_model": ref, "replaced": replaced})
        return replaced
