"""Stands before the reward service and falls ill on command: answers 500, hangs, or gives NaN for every score.

It passes on one request at a time. Requests that the service scores together round differently, by 1e-7, and which
ones come together depends on the moment; apart, weights that differ are a fault and nothing else.
"""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np

ILLNESSES = ("500", "hang", "nan")


class IllReward(ThreadingHTTPServer):
    """Context manager over a server in threads of this process.

    Attributes:
        illness: one of ILLNESSES, or None: everything is passed on.
        upstream: host and port of the real service; known once its port is.
        given: rewards that the real service gave, as float32.
        harmed: requests that met an illness.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = ""
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.illness: str | None = None
        self.given: set[float] = set()
        self.harmed = 0
        self.turn = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.shutdown()
        self.server_close()

    def hang(self) -> None:
        """Until this server ends: who hangs does not come back to old requests."""
        self._over.wait()


class _Handler(BaseHTTPRequestHandler):
    server: IllReward

    def do_POST(self) -> None:
        """Passes a request on, or harms it; who asked sees a dead service as a connection that ends."""
        with suppress(OSError, http.client.HTTPException):
            self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        illness = self.server.illness
        self.server.harmed += illness is not None
        if illness == "hang":
            self.server.hang()
        elif illness == "500":
            self._answer(500, b"Internal Server Error", "text/plain")
        else:
            status, data, kind = self._forward(body)
            if status == 200:
                data = self._read_scores(data, spoil=illness == "nan")
            self._answer(status, data, kind)

    def _forward(self, body: bytes) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        headers = {name: self.headers[name] for name in ("authorization", "content-type") if name in self.headers}
        with self.server.turn, closing(connection):
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers.get("content-type", "application/json")

    def _read_scores(self, data: bytes, *, spoil: bool) -> bytes:
        answer: dict[str, Any] = json.loads(data)
        for result in answer["results"]:
            if "reward" not in result:
                continue
            if spoil:
                result |= {"reward": float("nan"), "score": float("nan")}
            else:
                self.server.given.add(float(np.float32(result["reward"])))
        return json.dumps(answer).encode()

    def _answer(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""
