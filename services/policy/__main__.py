"""`python -m services.policy`: serves until SIGTERM or SIGINT, lets running requests finish, exits 0."""

from __future__ import annotations

import os
import sys

from fastapi import FastAPI

from rlhf.serving.process import run_service
from services.policy.settings import PolicySettings

SPINS = "20000"
"""Turns that an OpenMP thread spins before it sleeps, a fraction of a millisecond: a decoding step is hundreds of small
products one after another, and waking a thread for each costs a third of the speed. See docs/decisions/0013."""


def _create(settings: PolicySettings) -> FastAPI:
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is first imported, which is now
    from services.policy.app import create_app

    return create_app(settings)


if __name__ == "__main__":
    sys.exit(run_service("policy", PolicySettings, _create))
