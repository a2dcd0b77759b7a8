"""The services that the console asks, by their clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from rlhf.clients.http import NO_RETRIES
from rlhf.clients.policy import PolicyClient
from rlhf.clients.reward import RewardClient
from rlhf.clients.trainer import TrainerClient
from rlhf.contracts.errors import ServiceError
from rlhf.contracts.reward import RewardModels
from services.console.settings import ConsoleSettings

CONNECT_S = 2.0
"""Seconds for a connection: whoever looks at a page is told early that a service is away."""
LIST_S = 5.0
"""Seconds for a list that a page can do without."""


@dataclass(frozen=True)
class Backends:
    """One client a service; all may be used from several threads."""

    trainer: TrainerClient
    policy: PolicyClient
    reward: RewardClient

    def reward_models(self) -> list[str]:
        """Names to choose from, newest last; none while the reward service is away, since any may be written."""
        try:
            known = self.reward.fetch(RewardModels, "GET", "/models", timeout_s=LIST_S)
        except ServiceError:
            return []
        return list(dict.fromkeys([*known.available, *known.loaded]))

    def adapters(self) -> list[str]:
        """The best version of every PPO job that has one; none while the trainer is away, since any may be written."""
        try:
            jobs = self.trainer.jobs(kind="ppo")
        except ServiceError:
            return []
        return [job.best.adapter for job in jobs if job.best is not None]

    def close(self) -> None:
        """Closes their connections."""
        for client in (self.trainer, self.policy, self.reward):
            client.close()


def connect(settings: ConsoleSettings) -> Backends:
    """Clients that do not try again: the visitor does, and sees why. Opens nothing yet."""
    key, slow = settings.key_for_services, settings.playground_timeout_s
    return Backends(
        TrainerClient(
            settings.trainer_url,
            key,
            timeout_s=settings.jobs_timeout_s,
            connect_timeout_s=CONNECT_S,
            retries=NO_RETRIES,
        ),
        PolicyClient(settings.policy_url, key, timeout_s=slow, connect_timeout_s=CONNECT_S, retries=NO_RETRIES),
        RewardClient(settings.reward_url, key, timeout_s=slow, connect_timeout_s=CONNECT_S, retries=NO_RETRIES),
    )


def _backends(request: Request) -> Backends:
    backends: Backends = request.app.state.backends
    return backends


AtBackends = Annotated[Backends, Depends(_backends)]
