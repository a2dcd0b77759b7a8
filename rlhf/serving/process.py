"""How the process of an HTTP service runs: settings from the environment, drain on a signal, exit code 0."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from rlhf.serving.logs import configure_logs
from rlhf.serving.runtime import Runtime
from rlhf.serving.settings import ServiceSettings


class DrainingServer(uvicorn.Server):
    """Answers 503 to new requests after a signal, while `drain` waits for running ones; then it stops.

    uvicorn itself would refuse connections at once, and end the process by the signal instead of exit code 0.
    """

    def __init__(self, config: uvicorn.Config, drain: threading.Thread) -> None:
        """Args: config, of uvicorn; drain, a thread that sets `should_exit` when all is done."""
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to drain; a second signal stops at once."""
        if self._drain.ident is None:
            self._drain.start()
        else:
            self.should_exit = True


Settings = TypeVar("Settings", bound=ServiceSettings)


def run_service(name: str, settings_class: type[Settings], create_app: Callable[[Settings], FastAPI]) -> int:
    """Serves until SIGTERM or SIGINT, lets running requests finish.

    Args:
        name: of the service, for messages.
        settings_class: read from the environment.
        create_app: builds the application, with a Runtime on `app.state.runtime`; imports torch no earlier than this.

    Returns:
        The exit code: 0 after a stop, 1 when it could not work, 2 for wrong settings.
    """
    # Two processes that spin while they wait slow each other down several times; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (settings := _read(name, settings_class)) is None:
        return 2
    configure_logs(settings.log_level)
    app = create_app(settings)
    runtime: Runtime[Any] = app.state.runtime
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, access_log=False, timeout_graceful_shutdown=1
    )

    def drain() -> None:
        runtime.drain()
        server.should_exit = True

    def give_up() -> None:
        server.should_exit = True

    server = DrainingServer(config, threading.Thread(target=drain, name="drain", daemon=True))
    runtime.on_failure = give_up
    server.run()
    code = 0 if runtime.failure is None else 1
    if not runtime.stop():
        # A thread inside torch cannot be interrupted, and the interpreter must not be torn down under it.
        logging.shutdown()
        os._exit(code)
    return code


class StoppingServer(uvicorn.Server):
    """Says that it stops at a signal; the process then exits with 0, where uvicorn would die of the signal."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None] = lambda: None) -> None:
        """Args: config, of uvicorn; on_stop, called at the signal."""
        super().__init__(config)
        self._on_stop = on_stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn.Server; raises no signal again."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops."""
        self._on_stop()
        super().handle_exit(sig, frame)


def serve_until_told(name: str, settings_class: type[Settings], create_app: Callable[[Settings], FastAPI]) -> int:
    """Serves an application that loads no model until SIGTERM or SIGINT. Args, result: as run_service."""
    if (settings := _read(name, settings_class)) is None:
        return 2
    configure_logs(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, access_log=False, timeout_graceful_shutdown=5
    )
    StoppingServer(config).run()
    return 0


def _read(name: str, settings_class: type[Settings]) -> Settings | None:
    try:
        return settings_class()
    except ValidationError as error:
        for wrong in error.errors(include_input=False, include_url=False):
            field = "RLHF_" + "_".join(str(part) for part in wrong["loc"]).upper() if wrong["loc"] else "settings"
            print(f"{name}: {field}: {wrong['msg']}", file=sys.stderr)
        return None
