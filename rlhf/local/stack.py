"""The whole system as local processes: Redis, policy, reward, trainer-api, console, one worker of each queue."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from rlhf.local import redis
from rlhf.local.machine import choose_ports, physical_cores, thread_environment
from rlhf.local.processes import Probe, Program, Supervisor
from rlhf.local.signals import StopSignals

HOST = "127.0.0.1"
OWN_SETTINGS = ("RLHF_API_KEY_FILE", "RLHF_ALLOW_NO_KEY", "RLHF_HOST", "RLHF_PORT", "RLHF_METRICS_PORT")
"""Settings of the caller's environment that must not reach the services: set for each of them here, or unset."""
SPARING = {"RLHF_ADAPTER_MEMORY_MIB": "256"}
"""Settings for a machine that has all services at once, unless the caller's environment has others: PPO asks for the
newest adapter, and what the older ones would take is missing elsewhere."""


@dataclass(frozen=True)
class StackOptions:
    """What to start.

    Attributes:
        folder: of the run: logs/, store/, redis/ and the console's database are made in it.
        model: the base model, a folder or a Hub id.
        ports: policy, reward, trainer, console and redis; 0 takes a free one.
        api_key: null draws one.
        evaluations: whether a worker for evaluation jobs is among them.
        console: whether the console is among them.
    """

    folder: Path
    model: str
    ports: Mapping[str, int] = field(default_factory=dict)
    api_key: str | None = None
    evaluations: bool = False
    console: bool = False


@dataclass(frozen=True)
class Endpoints:
    """Where a running stack answers, and the secrets to talk to it."""

    policy: str
    reward: str
    trainer: str
    redis: str
    api_key: str = field(repr=False)
    console: str | None = None

    def write(self, path: Path) -> None:
        """Writes them as JSON that only the owner can read; the file appears whole."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:  # noqa: PTH123 - pathlib cannot create with a mode
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
        temporary.rename(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The endpoints that `write` wrote."""
        return cls(**json.loads(path.read_text()))


class Stack:
    """Context manager over the processes: entering starts them and waits until all are ready, leaving stops them."""

    def __init__(self, options: StackOptions, signals: StopSignals, say: Callable[[str], None]) -> None:
        """Args: options; signals, entered already; say, prints a line."""
        self.options, self.threads = options, physical_cores()
        self.logs = options.folder / "logs"
        self.supervisor = Supervisor(signals, say)
        self._undo = ExitStack()
        self._workers = ["learner", "rollouts", *(["evaluations"] if options.evaluations else [])]
        self._servers = ["policy", "reward", "trainer", *(["console"] if options.console else [])]
        wanted = dict.fromkeys((*self._servers, "redis", *self._workers), 0)
        self._ports = choose_ports({**wanted, **options.ports})
        self._redis = redis.prepare(options.folder / "redis", port=self._ports["redis"])
        self.endpoints = Endpoints(
            policy=self._url("policy"),
            reward=self._url("reward"),
            trainer=self._url("trainer"),
            redis=self._redis.url,
            api_key=options.api_key or secrets.token_urlsafe(24),
            console=self._url("console") if options.console else None,
        )

    def __enter__(self) -> Self:
        """Starts everything.

        Raises:
            ServiceFailed: a service died or did not become ready.
        """
        with ExitStack() as undo:
            undo.enter_context(self.supervisor)
            self.supervisor.start([self._redis_program()])
            self.supervisor.wait_ready()
            # Together: each spends its start on imports, and none needs another to be ready.
            self.supervisor.start([self._server(name) for name in self._servers])
            self.supervisor.start([self._worker(name) for name in self._workers])
            self.supervisor.wait_ready()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Stops everything."""
        self._undo.close()

    def _url(self, name: str, path: str = "") -> str:
        return f"http://{HOST}:{self._ports[name]}{path}"

    def _redis_program(self) -> Program:
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        return Program("redis", self._redis.command, environment, self.logs / "redis.log", self._redis.probe)

    def _server(self, name: str) -> Program:
        module = "services.trainer.api" if name == "trainer" else f"services.{name}"
        label = "trainer-api" if name == "trainer" else name
        settings = {"RLHF_HOST": HOST, "RLHF_PORT": str(self._ports[name])}
        if name == "console":
            # Its default is a file of the folder that this process was started in.
            settings["RLHF_CONSOLE_DATABASE"] = str((self.options.folder / "console.sqlite3").resolve())
        threads = self.threads if name in ("policy", "reward") else 1
        probe = http_probe(self._url(name, "/ready"))
        return self._program(label, [module], settings, threads, probe)

    def _worker(self, name: str) -> Program:
        settings = {"RLHF_METRICS_PORT": str(self._ports[name])}
        threads = self.threads if name == "learner" else 1
        # A worker opens its metrics port once it consumes its queue.
        probe = http_probe(self._url(name, "/metrics"))
        return self._program(name, ["services.trainer.worker", name], settings, threads, probe)

    def _program(self, label: str, module: list[str], settings: dict[str, str], threads: int, probe: Probe) -> Program:
        inherited = {k: v for k, v in os.environ.items() if k not in OWN_SETTINGS}
        shared = {
            "RLHF_MODEL": self.options.model,
            "RLHF_STORE": str((self.options.folder / "store").resolve()),
            "RLHF_API_KEY": self.endpoints.api_key,
            "RLHF_REDIS_URL": self.endpoints.redis,
            "RLHF_POLICY_URL": self.endpoints.policy,
            "RLHF_REWARD_URL": self.endpoints.reward,
            "RLHF_TRAINER_URL": self.endpoints.trainer,
            "PYTHONUNBUFFERED": "1",
        }
        if Path(self.options.model).is_dir():
            # A local folder holds everything; nothing needs to ask a hub, which would wait for a network.
            shared["HF_HUB_OFFLINE"] = "1"
        environment = {**SPARING, **inherited, **thread_environment(threads), **shared, **settings}
        command = [sys.executable, "-m", *module]
        return Program(label, command, environment, self.logs / f"{label}.log", probe)


def http_probe(url: str) -> Probe:
    """A probe that asks a URL for a 2xx answer; says what it got instead. Costs next to nothing while others start."""
    parts = urlsplit(url)

    def probe() -> str | None:
        connection = http.client.HTTPConnection(parts.netloc, timeout=2.0)
        try:
            connection.request("GET", parts.path)
            answer = connection.getresponse()
            text = answer.read(300).decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return f"{url} does not answer ({type(error).__name__})"
        finally:
            connection.close()
        return None if 200 <= answer.status < 300 else f"{url} answers {answer.status}: {text}"

    return probe
