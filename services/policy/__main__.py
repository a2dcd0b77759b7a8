"""`python -m services.policy`: serves until SIGTERM or SIGINT, lets running requests finish, exits 0."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from rlhf.serving.process import run_service
from services.policy.settings import PolicySettings


def _create(settings: PolicySettings) -> FastAPI:
    from services.policy.app import create_app

    return create_app(settings)


if __name__ == "__main__":
    sys.exit(run_service("policy", PolicySettings, _create))
