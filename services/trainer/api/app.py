"""The job API as an ASGI app: routes, records in Redis, files in the store, and the reconciler beside them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from redis import RedisError

from rlhf.artifacts.store import ArtifactStore
from rlhf.serving.service import create_service
from services.trainer.api.routes import router
from services.trainer.api.submission import Desk
from services.trainer.jobs.celery_app import create_celery
from services.trainer.jobs.connection import connect
from services.trainer.jobs.reconciler import reconcile
from services.trainer.jobs.store import JobStore
from services.trainer.settings import ApiSettings

log = logging.getLogger(__name__)


def create_app(settings: ApiSettings) -> FastAPI:
    """Builds the app. `app.state.stopping` ends event streams; whoever serves the app sets it before shutdown."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis, celery = connect(settings), create_celery(settings)
        app.state.redis = redis
        app.state.desk = Desk(settings, JobStore(redis, settings), ArtifactStore(settings.store), celery)
        reconciler = asyncio.create_task(_reconcile_forever(app.state.desk))
        try:
            yield
        finally:
            app.state.stopping.set()
            reconciler.cancel()
            with suppress(asyncio.CancelledError):
                await reconciler
            redis.close()
            celery.close()

    app = create_service("trainer", settings, [router], lifespan=lifespan, ready=_why_not_ready)
    app.state.stopping = threading.Event()
    return app


async def _why_not_ready(app: FastAPI) -> str | None:
    try:
        await asyncio.to_thread(app.state.redis.ping)
    except RedisError as error:
        return f"Redis does not answer ({error}); check RLHF_REDIS_URL"
    return None


async def _reconcile_forever(desk: Desk) -> None:
    while True:
        try:
            await asyncio.to_thread(reconcile, desk.jobs.redis, desk.jobs, desk.app, desk.settings)
        except Exception:
            # Whatever went wrong once must not end the recovery of all later jobs.
            log.exception("reconciler failed, it tries again")
        await asyncio.sleep(desk.settings.reconcile_s)
