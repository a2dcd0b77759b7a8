"""What bench-faults runs: the whole system as processes on free ports, with times short enough to watch recovery."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import HOST, environment
from rlhf.local import redis
from rlhf.local.machine import choose_ports
from rlhf.local.processes import Program
from rlhf.local.stack import http_probe

ROLLOUTS = ("rollouts-1", "rollouts-2")
NAMES = ("redis", "policy", "reward", "trainer-api", "learner", *ROLLOUTS)
KEY = "bench-faults"
TIMES = {
    "RLHF_LEASE_S": "6",
    "RLHF_HEARTBEAT_S": "1.5",
    "RLHF_ROLLOUT_LOOK_S": "1.5",
    "RLHF_ENQUEUE_GRACE_S": "3",
    "RLHF_RECONCILE_S": "1",
    "RLHF_ROLLOUT_TIME_LIMIT_S": "20",
}
"""Shorter than the defaults; a fault then costs seconds and not half a minute."""
ALONE = {"RLHF_MAX_BATCH_ROWS": "1", "RLHF_PREFIX_TOKENS": "0"}
"""Policy: every response is computed by itself. In company it has the same text, but its log-probabilities round
differently, by 1e-6, and who keeps it company depends on the moment."""
COMMANDS = {
    "policy": ["services.policy"],
    "reward": ["services.reward"],
    "trainer-api": ["services.trainer.api"],
    "learner": ["services.trainer.worker", "learner"],
    **{name: ["services.trainer.worker", "rollouts"] for name in ROLLOUTS},
}


@dataclass(frozen=True)
class System:
    """Programs by name, and where they answer.

    Attributes:
        programs: Redis first; the others need it.
        reward: host and port of the real service.
        trainer: URL.
        store: root of the artifact store.
        journal: Redis' own folder, with its append-only file.
    """

    programs: dict[str, Program]
    reward: str
    trainer: str
    store: Path
    journal: Path


def prepare(folder: Path, model: Path, reward: str) -> System:
    """Lays out a run in a folder; starts nothing. Args: reward, where rollout workers find the reward service."""
    ports = choose_ports(dict.fromkeys(NAMES, 0))
    urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    server = redis.prepare(folder / "redis", port=ports["redis"])
    shared = TIMES | {
        "RLHF_MODEL": str(model),
        "RLHF_STORE": str(folder / "store"),
        "RLHF_API_KEY": KEY,
        "RLHF_REDIS_URL": server.url,
        "RLHF_POLICY_URL": urls["policy"],
        "RLHF_REWARD_URL": reward,
    }
    plain = {"PATH": os.environ.get("PATH", os.defpath)}
    programs = {"redis": Program("redis", server.command, plain, folder / "logs/redis.log", server.probe)}
    for name, module in COMMANDS.items():
        # A worker opens its metrics port once it consumes its queue.
        works = module[0] == "services.trainer.worker"
        own = {"RLHF_METRICS_PORT" if works else "RLHF_PORT": str(ports[name]), **(ALONE if name == "policy" else {})}
        probe = http_probe(urls[name] + ("/metrics" if works else "/ready"))
        command = [sys.executable, "-m", *module]
        programs[name] = Program(name, command, environment(1, **shared, **own), folder / f"logs/{name}.log", probe)
    return System(programs, f"{HOST}:{ports['reward']}", urls["trainer-api"], folder / "store", folder / "redis")
