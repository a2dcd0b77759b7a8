"""The learner's side of the stream: asks for batches, waits for a whole step, sends again what was lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.experience.stream import Entry, ExperienceStream

log = logging.getLogger(__name__)


class RolloutFailed(Exception):
    """A batch will never come; the message says which and why."""


class ServicesFailed(Exception):
    """Policy, reward or rollout workers could not do what a step needs, in all tries; once they are mended they can."""


class Collector:
    """Collects the batches of one job's steps; keeps them until they are acknowledged."""

    def __init__(
        self,
        stream: ExperienceStream,
        send: Callable[[list[RolloutTask]], None],
        alive: Callable[[list[str]], set[str]],
        *,
        look_s: float,
        block_ms: int,
    ) -> None:
        """Makes a collector for one attempt.

        Args:
            stream: the job's experience.
            send: queues tasks.
            alive: those batch ids that a worker is making or a message asks for.
            look_s: seconds between looks for lost tasks; one that is lost in two looks in a row is sent again.
            block_ms: longest wait for a batch between two checks.
        """
        self.stream, self._send, self._alive = stream, send, alive
        self._look_s, self._block_ms = look_s, block_ms
        self._tasks: dict[str, RolloutTask] = {}
        self._entries: dict[str, Entry] = {}
        self._resumed = False

    def enqueue(self, tasks: list[RolloutTask]) -> None:
        """Sends the tasks whose batch is neither there nor on its way from an earlier attempt.

        Those that this attempt asked for already are left to `pull`, which knows when they are lost or have failed.
        """
        fresh = {task.batch_id: task for task in tasks if task.batch_id not in self._tasks}
        ids = list(fresh)
        known = self.stream.seen(ids) | self._alive(ids)
        # Why an earlier attempt had to stop is past: whoever resumed the job had it mended.
        self.stream.forget_failures(ids)
        self._tasks |= fresh
        self._send_all([task for batch_id, task in fresh.items() if batch_id not in known])

    def pull(self, step: int, shards: int, check: Callable[[], None]) -> list[ExperienceBatch]:
        """Waits for all batches of a step.

        Args:
            step: the PPO step.
            shards: how many batches it has.
            check: called before every wait; raises to end it.

        Returns:
            The batches in shard order.

        Raises:
            RolloutFailed: one of them will never come.
            ServicesFailed: one of them was tried for as long as a rollout worker tries.
        """
        self._read_pending(step)
        wanted = [f"{self.stream.job}:{step}:{shard}" for shard in range(shards)]
        suspects: set[str] = set()
        look_at = time.monotonic() + self._look_s
        while missing := [batch_id for batch_id in wanted if batch_id not in self._entries]:
            check()
            for batch_id, failure in self.stream.failures(missing).items():
                kind = ServicesFailed if failure.mendable else RolloutFailed
                raise kind(f"rollout {batch_id} failed: {failure.reason}")
            if time.monotonic() >= look_at:
                suspects = self._resend_lost(missing, suspects)
                look_at = time.monotonic() + self._look_s
            self._keep(self.stream.read(self._block_ms))
        return [self._entries[batch_id].batch for batch_id in wanted]

    def acknowledge(self, batches: list[ExperienceBatch]) -> None:
        """Deletes batches from the stream: only once a durable checkpoint contains them."""
        self.stream.acknowledge([self._entries[batch.batch_id].id for batch in batches])
        for batch in batches:
            del self._entries[batch.batch_id]
            self._tasks.pop(batch.batch_id, None)

    def discard(self, batches: list[ExperienceBatch]) -> None:
        """Takes batches back that nobody has learned from: whoever asks for them again gets new ones."""
        entries = {batch.batch_id: self._entries.pop(batch.batch_id) for batch in batches}
        self.stream.discard({batch_id: entry.id for batch_id, entry in entries.items()})
        for batch_id in entries:
            self._tasks.pop(batch_id, None)

    def _send_all(self, tasks: list[RolloutTask]) -> None:
        if tasks:
            self._send(tasks)

    def _read_pending(self, step: int) -> None:
        if self._resumed:
            return
        self._resumed = True
        entries = self.stream.pending()
        # The step asked for first is where the checkpoint ends: earlier batches are in it, but the attempt that read
        # them died before it could acknowledge them.
        done = [entry.id for entry in entries if entry.batch.step < step]
        self.stream.acknowledge(done)
        self._keep([entry for entry in entries if entry.batch.step >= step])

    def _keep(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._entries[entry.batch.batch_id] = entry

    def _resend_lost(self, missing: list[str], suspects: set[str]) -> set[str]:
        """Sends again what is still lost since the last look; returns what is lost at this one."""
        lost = set(missing) - self._alive(missing)
        again = sorted(lost & suspects)
        for batch_id in again:
            if batch_id in self.stream.seen([batch_id]):
                # Between the two looks everything in the stream was read, and this was not there.
                raise RolloutFailed(
                    f"batch {batch_id} was already acknowledged, so a checkpoint that contains it is missing from the "
                    "job's folder; restore the folder or submit the job again"
                )
            if batch_id not in self._tasks:
                raise RolloutFailed(f"batch {batch_id} was never asked for; enqueue its task before pulling it")
            log.warning("rollout lost, sending it again", extra={"batch": batch_id})
        self._send_all([self._tasks[batch_id] for batch_id in again])
        return lost - suspects
