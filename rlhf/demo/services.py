"""The services that the demo talks to: started by it and watched, or running already and only asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rlhf.local.processes import ServiceFailed
from rlhf.local.stack import Stack

Address = tuple[str, str | None]
"""Base URL and API key."""


class Services(Protocol):
    """What the demo needs to know of them."""

    def address(self, service: str) -> Address:
        """Where policy, reward or trainer answers."""

    def check(self) -> None:
        """Raises what ends the run: a stop was requested, or a process died."""

    def failure(self, service: str, what: str) -> ServiceFailed:
        """The error to raise for a service, or for a process whose death explains it better."""


@dataclass(frozen=True)
class OwnServices:
    """A stack of this process's children."""

    stack: Stack

    def address(self, service: str) -> Address:
        """As told."""
        endpoints = self.stack.endpoints
        return str(getattr(endpoints, service)), endpoints.api_key

    def check(self) -> None:
        """As told."""
        self.stack.supervisor.check()

    def failure(self, service: str, what: str) -> ServiceFailed:
        """As told."""
        self.stack.supervisor.blame()
        return ServiceFailed(service, what, self.stack.logs / f"{service}.log")


@dataclass(frozen=True)
class RunningServices:
    """Services that someone else runs, such as containers."""

    addresses: Mapping[str, Address]

    def address(self, service: str) -> Address:
        """As told."""
        return self.addresses[service]

    def check(self) -> None:
        """Nothing: a service that died is noticed when it does not answer."""

    def failure(self, service: str, what: str) -> ServiceFailed:
        """As told."""
        return ServiceFailed(service, what, None)
