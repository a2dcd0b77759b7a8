"""A complete report.json of a small run in which every claim holds, and watchdog events of every shape."""

from __future__ import annotations

import math
from typing import Any

TYPES = ["question", "how-to", "list", "rewrite", "advice", "small talk", "summary"]


def curve(first: float, last: float, wobble: float, steps: int = 20) -> list[float]:
    return [first + (last - first) * i / (steps - 1) + wobble * math.sin(2.3 * i) for i in range(steps)]


def sample(i: int, *, after: bool) -> dict[str, Any]:
    looped = "You can ask your boss for more time. You can ask your boss for help too, because you can ask your"
    brief = "Yes, a short walk after lunch helps you stay awake. Keep it to ten minutes."
    return {
        "prompt": f"{TYPES[i % 7].capitalize()} number {i}: how do I stay awake after lunch when the office is warm?",
        "type": TYPES[i % 7],
        "response": brief if after else looped,
        "gold": 0.66 if after else 0.38,
        "proxy": 0.51 if after else -0.12,
        "uncertainty": 0.31,
        "finish_reason": "eos_token" if after else "length",
    }


def full_report() -> dict[str, Any]:
    """A run of 20 steps in which every claim holds."""
    return {
        "reward_model": {
            "members": 5,
            "train_pairs": 1020,
            "eval_pairs": 180,
            "accuracy_ensemble": 0.822,
            "accuracy_members": [0.789, 0.806, 0.778, 0.811, 0.794],
            "accuracy_length_baseline": 0.611,
            "ece": 0.043,
        },
        "ppo": {
            "steps": 20,
            "samples": 640,
            "tokens": 23104,
            "policy_loss": curve(-0.004, -0.012, 0.005),
            "value_loss": curve(0.62, 0.21, 0.04),
            "kl_sequence": [0.0, *curve(0.04, 0.36, 0.03, 19)],
            "kl_token": [0.0, *curve(0.001, 0.010, 0.001, 19)],
            "kl_target": 0.3,
            "beta": curve(0.25, 0.31, 0.005),
            "reward_mean": curve(-0.08, 0.52, 0.08),
            "uncertainty_mean": curve(0.36, 0.29, 0.02),
            "entropy": curve(1.62, 1.38, 0.05),
            "clip_fraction": curve(0.05, 0.14, 0.02),
            "explained_variance": [-3.5, *curve(-0.4, 0.48, 0.08, 19)],
            "ratio_first_minibatch": curve(1.0, 1.0, 2e-6),
            "response_length": curve(37.8, 31.2, 0.8),
            "eos_rate": curve(0.18, 0.51, 0.04),
        },
        "before": {
            "gold_mean": 0.412,
            "proxy_mean": -0.031,
            "uncertainty_mean": 0.352,
            "rep4": 0.018,
            "distinct2": 0.71,
            "eos_rate": 0.17,
            "length_mean": 37.9,
            "samples": [sample(i, after=False) for i in range(21)],
        },
        "after": {
            "gold_mean": 0.574,
            "proxy_mean": 0.498,
            "uncertainty_mean": 0.301,
            "rep4": 0.012,
            "distinct2": 0.69,
            "eos_rate": 0.46,
            "length_mean": 32.4,
            "samples": [sample(i, after=True) for i in range(21)],
        },
        "win_rate": {"gold": 0.62, "gold_ci95": [0.547, 0.693], "n": 96},
        "warnings": [],
        "seeds": {"run": 0, "reward_model": 1, "ppo": 2, "evaluation": [3, 4]},
        "durations_s": {"start": 21.4, "reward_model": 171.0, "ppo": 583.2, "evaluation": 84.0, "all": 3725.0},
        "peak_memory_mib": {"policy": 1104.0, "reward": 913.4, "learner": 2290.9, "total": 5012.2},
        "versions": {"rlhf-services": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
    }


WARNINGS: list[Any] = [
    {
        "name": "clip_fraction_high",
        "step": 7,
        "message": "More than half of the tokens were clipped.",
        "value": 0.534,
        "threshold": 0.5,
        "hint": "lower the learning rate",
        "phase": "update",
    },
    {"name": "eos_rate_low", "message": "Few responses end by themselves."},
    "the reward service was restarted once",
]
