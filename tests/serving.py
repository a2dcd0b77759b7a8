"""An application behind uvicorn, as in production, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from rlhf.local.redis import free_port


@contextmanager
def served(app: FastAPI, seconds: float = 120) -> Iterator[str]:
    """Its URL, once it is ready. Args: app; seconds, to become so."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + seconds
    try:
        while not (server.started and httpx.get(f"{url}/ready").status_code == 200):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield url
    finally:
        server.should_exit = True
        thread.join(60)
