"""Pauses between tries."""

import pytest

from services.trainer.rollouts.tasks import backoff_s
from services.trainer.settings import RolloutSettings

SETTINGS = RolloutSettings(policy_url="http://p", reward_url="http://r", rollout_backoff_s=2, rollout_backoff_max_s=30)


@pytest.mark.parametrize(
    # 2 s doubled `retries` times, at most 30 s; the jitter takes up to half of it away.
    ("retries", "low", "high"),
    [(0, 1, 2), (1, 2, 4), (2, 4, 8), (3, 8, 16), (4, 15, 30), (1000, 15, 30)],
)
def test_pauses_double_up_to_the_maximum(retries: int, low: float, high: float) -> None:
    pauses = [backoff_s(SETTINGS, retries, None) for _ in range(200)]
    assert low <= min(pauses) < max(pauses) <= high


def test_the_service_may_ask_for_more() -> None:
    assert backoff_s(SETTINGS, 0, 45.0) == 45.0
