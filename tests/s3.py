"""An S3 to test with: moto's server, in this process, with one bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from moto.server import ThreadedMotoServer

BUCKET = "bucket"


@dataclass(frozen=True)
class S3:
    """A running server. Attributes: environment, by which clients find it and sign; server, to be stopped early."""

    environment: dict[str, str]
    server: ThreadedMotoServer

    @property
    def url(self) -> str:
        """Of a prefix in its bucket, for RLHF_STORE_REMOTE."""
        return f"s3://{BUCKET}/team/rlhf"


@contextmanager
def serving_s3() -> Iterator[S3]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        httpx.put(f"{address}/{BUCKET}").raise_for_status()
        environment = {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        yield S3(environment | {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}, server)
    finally:
        server.stop()
