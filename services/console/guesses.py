"""A limit on guesses of a key, per address and in all. No HTTP."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable

from rlhf.contracts.errors import Overloaded


class Guesses:
    """The wrong keys of the last minutes. Safe to use from several threads; each console counts its own."""

    def __init__(
        self, per_address: int, in_all: int, window_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: per_address, in_all, most wrong keys in window_s seconds; now, the clock."""
        self._per_address, self._in_all, self._window_s, self._now = per_address, in_all, window_s, now
        self._wrong: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def begin(self, address: str) -> None:
        """Counts a guess, before anything is compared, so that many at once are no more than many in turn.

        Raises:
            Overloaded: there were too many; says when the next may come.
        """
        network = _network(address)
        with self._lock:
            now = self._now()
            self._wrong = [each for each in self._wrong if each[0] > now - self._window_s]
            own = [each for each in self._wrong if each[1] == network]
            for guesses, most in ((own, self._per_address), (self._wrong, self._in_all)):
                if len(guesses) >= most:
                    wait = math.ceil(guesses[-most][0] + self._window_s - now)
                    raise Overloaded(
                        f"too many wrong keys: {len(guesses)} in {self._window_s:g} s; try again in {wait} s",
                        retry_after=wait,
                    )
            self._wrong.append((now, network))

    def forgive(self, address: str) -> None:
        """The last guess was right."""
        network = _network(address)
        with self._lock:
            for index in range(len(self._wrong) - 1, -1, -1):
                if self._wrong[index][1] == network:
                    del self._wrong[index]
                    return


def _network(address: str) -> str:
    """An IPv6 visitor has 2^64 addresses: they count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
