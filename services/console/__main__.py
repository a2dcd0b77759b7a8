"""Serves the console: `python -m services.console`. SIGTERM ends it within seconds, with exit status 0."""

from __future__ import annotations

import sys

from rlhf.serving.process import serve_until_told
from services.console.app import create_app
from services.console.settings import ConsoleSettings
from services.console.store.database import DatabaseError

if __name__ == "__main__":
    try:
        sys.exit(serve_until_told("console", ConsoleSettings, create_app))
    except DatabaseError as error:
        sys.exit(f"console: {error}")
