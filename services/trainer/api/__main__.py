"""Serves the job API: `python -m services.trainer.api`. SIGTERM ends it within seconds, with exit status 0."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from rlhf.serving.logs import configure_logs
from services.trainer.api.app import create_app
from services.trainer.settings import ApiSettings


class _Server(uvicorn.Server):
    """Ends event streams when told to stop; then exits with 0, where uvicorn would die of the same signal again."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


def main() -> None:
    """Serves until told to stop."""
    settings = ApiSettings()
    configure_logs(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    _Server(config, app.state.stopping).run()


if __name__ == "__main__":
    main()
