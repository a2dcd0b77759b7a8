"""Serves the job API: `python -m services.trainer.api`. SIGTERM ends it within seconds, with exit status 0."""

from __future__ import annotations

import uvicorn

from rlhf.serving.logs import configure_logs
from rlhf.serving.process import StoppingServer
from services.trainer.api.app import create_app
from services.trainer.settings import ApiSettings


def main() -> None:
    """Serves until told to stop; ends event streams then."""
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
    StoppingServer(config, app.state.stopping.set).run()


if __name__ == "__main__":
    main()
