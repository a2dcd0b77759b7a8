"""What a training job sees of the trainer: its config, its folder, its rollouts, and when it must stop. No torch."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.jobs import AnyJobConfig, BestVersion, JobConfig
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.experience.collector import Collector, RolloutFailed, ServicesFailed
from services.trainer.jobs.instruments import WATCHDOG_ALERTS, show_job
from services.trainer.jobs.lease import Lease, LeaseLost
from services.trainer.jobs.record import EventKind, Level, finite
from services.trainer.jobs.series import SeriesWriter
from services.trainer.jobs.store import JobStore

if TYPE_CHECKING:
    from services.trainer.jobs.board import Board

__all__ = [
    "CONFIG_FILE",
    "JobCancelled",
    "JobHandle",
    "JobPaused",
    "LeaseLost",
    "ProcessLost",
    "RolloutFailed",
    "ServicesFailed",
    "WorkerStopping",
    "read_config",
]

CONFIG_FILE = "config.json"


class JobCancelled(Exception):
    """Someone asked to cancel the job."""


class JobPaused(Exception):
    """Someone asked to pause the job; it goes on from its checkpoint when it is resumed."""


class WorkerStopping(Exception):
    """The worker was told to stop; the job goes back into the queue and the next worker resumes it."""


class ProcessLost(Exception):
    """A process of a learner of several is gone; the others end too, and the job is taken up from its checkpoint."""


class JobHandle:
    """One attempt at one job.

    Attributes:
        id: the job's id, and the name of what it publishes.
        config: validated.
        folder: the job's own folder, for checkpoints and reports; the same in every attempt.
        store: the artifact store, for publishing.
    """

    def __init__(
        self,
        job: str,
        jobs: JobStore,
        store: ArtifactStore,
        lease: Lease,
        collector: Collector,
        stopping: threading.Event,
        *,
        curves: bool = True,
    ) -> None:
        """Args: jobs, records; lease, collector, this attempt's; stopping, set when it must end; curves, drawn."""
        self.id, self.store, self.folder = job, store, store.job_folder(job)
        self.config = read_config(self.folder)
        self._jobs, self._lease, self._collector, self._stopping = jobs, lease, collector, stopping
        self._series, self._board = SeriesWriter(self.folder), _open_board(self.folder) if curves else None
        self._progressed: tuple[int, float] | None = None
        self._step_s: float | None = None

    def progress(self, step: int, total: int, metrics: dict[str, float], best: BestVersion | None = None) -> None:
        """Records that steps are done: the record, a row of metrics.jsonl, curves of TensorBoard, gauges, an event.

        Args:
            step: steps done so far; a step that is reported again replaces its row and any later ones.
            total: steps of the whole job.
            metrics: name to value; NaN and infinities are kept as null.
            best: version so far, where the job can tell.
        """
        now = time.monotonic()
        if self._progressed is not None and step > self._progressed[0]:
            pace = (now - self._progressed[1]) / (step - self._progressed[0])
            self._step_s = pace if self._step_s is None else 0.5 * (self._step_s + pace)
        self._progressed = step, now
        values = {name: finite(float(value)) for name, value in metrics.items()}
        known = {name: value for name, value in values.items() if value is not None}
        self._series.write({**values, "step": step, "time": time.time()})
        if self._board is not None:
            self._board.write(step, known)
        show_job(self.id, step, total, known, time.time())
        self._jobs.progress(self.id, step, total, known, self._step_s, best)
        data = {"step": step, "total": total, "metrics": values}
        self._jobs.add_event(self.id, "progress", "info", "progress", f"step {step} of {total}", data)

    def event(
        self,
        name: str,
        message: str,
        *,
        kind: EventKind = "log",
        level: Level = "info",
        data: dict[str, Any] | None = None,
        of: str | None = None,
    ) -> None:
        """Tells the user something.

        Args:
            name: of the event.
            message: for people.
            kind: of the event.
            level: of the event.
            data: JSON values; a watchdog gives value, threshold and hint.
            of: another job among whose events it belongs, if that has a record still.
        """
        if kind == "watchdog":
            WATCHDOG_ALERTS.labels(name).inc()
        if of is None or of == self.id or self._jobs.fields(of, "state") != (None,):
            self._jobs.add_event(of or self.id, kind, level, name, message, data or {})

    def raise_if_lost(self) -> None:
        """Raises LeaseLost when another worker may have the job: before anything is written."""
        self._lease.check()

    def raise_if_stopped(self) -> None:
        """Raises LeaseLost, WorkerStopping, JobCancelled or JobPaused when the job must not go on; call it often."""
        self.raise_if_lost()
        if self._stopping.is_set():
            raise WorkerStopping("the worker was told to stop; the next one goes on from the last checkpoint")
        wishes = self._jobs.wishes(self.id)
        if wishes.cancel:
            raise JobCancelled("cancelled by request")
        if wishes.pause:
            raise JobPaused("paused by request")

    def close(self) -> None:
        """Ends what it writes to; the attempt is over."""
        if self._board is not None:
            self._board.close()

    def enqueue(self, tasks: list[RolloutTask]) -> None:
        """Asks for batches; those that are there, or on their way, from an earlier attempt are not asked for again."""
        self._collector.enqueue(tasks)

    def pull(self, step: int, shards: int) -> list[ExperienceBatch]:
        """The batches of a step in shard order; waits for them and sends lost tasks again.

        Raises:
            RolloutFailed: a batch will never come; says why.
            ServicesFailed: a batch does not come until someone mends a service; says why.
            LeaseLost, WorkerStopping, JobCancelled, JobPaused: as raise_if_stopped.
        """
        return self._collector.pull(step, shards, self.raise_if_stopped)

    def acknowledge(self, batches: list[ExperienceBatch]) -> None:
        """Deletes batches from Redis: only once a durable checkpoint contains them."""
        self._collector.acknowledge(batches)

    def discard(self, batches: list[ExperienceBatch]) -> None:
        """Takes back batches that were not learned from: the next attempt asks for them again."""
        self._collector.discard(batches)


def _open_board(folder: Path) -> Board:
    # Only where training runs: the images of the job API and of rollout workers, which import this file, have no
    # TensorBoard.
    from services.trainer.jobs.board import Board

    return Board(folder)


def read_config(folder: Path) -> AnyJobConfig:
    """The config that was submitted. Args: folder, the job's."""
    adapter: TypeAdapter[AnyJobConfig] = TypeAdapter(JobConfig)
    return adapter.validate_json((folder / CONFIG_FILE).read_bytes())
