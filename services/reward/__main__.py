"""`python -m services.reward`: serves until SIGTERM or SIGINT, lets running requests finish, exits 0."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from rlhf.serving.process import run_service
from services.reward.settings import RewardSettings


def _create(settings: RewardSettings) -> FastAPI:
    from services.reward.app import create_app

    return create_app(settings)


if __name__ == "__main__":
    sys.exit(run_service("reward", RewardSettings, _create))
