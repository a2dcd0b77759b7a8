"""A learner of several processes, as torchrun starts them: the first runs jobs, the others follow. Not the maths.

All run the same PPO code on the same batches. Only the first has the job: its lease, records, batches and files. At
three places of a step it tells the others how that went, and there a pause, a cancel or a stop ends all alike. Any
other end that not all come to ends the processes: torchrun starts them again, and the job goes on from its checkpoint.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast

import msgpack
import torch
import torch.distributed as dist
from celery.worker import state
from torch.distributed.rendezvous import rendezvous

from rlhf.artifacts.store import ArtifactStore
from rlhf.serving.logs import configure_logs
from services.trainer.experience.batch import ExperienceBatch, pack, unpack
from services.trainer.jobs.handle import JobHandle, ProcessLost, read_config
from services.trainer.jobs.tasks import load_base_model
from services.trainer.ppo.learner import run_ppo
from services.trainer.ppo.parallel import Team
from services.trainer.reward_model.train import run_reward_model
from services.trainer.settings import LearnerSettings

log = logging.getLogger(__name__)
T = TypeVar("T")
FOREVER = timedelta(days=3650)
"""How long the others wait for a message: there may be no job, or no rollouts, for days. A dead sender is noticed."""
MEETING_S = 30.0
"""How long the processes wait for each other at the end of a job."""

ENTRY_POINTS = {
    "ppo": "services.trainer.ppo.processes:lead_ppo",
    "reward_model": "services.trainer.ppo.processes:run_reward_model_alone",
}
"""Kind of job to what the first process does; `base` is the Processes."""


class JobEnded(Exception):
    """The first process said that this attempt is over."""


class Channel:
    """Messages from the first process to all others, over gloo: maps of what msgpack knows."""

    def __init__(self, timeout_s: float) -> None:
        """Args: timeout_s, how long the sender waits for the others."""
        self.group = dist.new_group(backend="gloo", timeout=FOREVER)
        self._patience = timedelta(seconds=timeout_s)

    def send(self, message: Mapping[str, object]) -> None:
        """Raises RuntimeError when a process is gone or does not listen."""
        data = torch.frombuffer(bytearray(msgpack.packb(message)), dtype=torch.uint8)
        for part in (torch.tensor([len(data)]), data):
            dist.broadcast(part, 0, self.group, async_op=True).wait(self._patience)

    def receive(self) -> dict[str, Any]:
        """Waits for the next message. Raises RuntimeError when the sender is gone."""
        length = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(length, 0, self.group)
        data = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(data, 0, self.group)
        return cast(dict[str, Any], msgpack.unpackb(data.numpy().tobytes()))

    def meet(self) -> bool:
        """Whether all processes came here in time."""
        try:
            dist.monitored_barrier(self.group, timeout=timedelta(seconds=MEETING_S))
        except RuntimeError as error:
            log.warning("not all processes of the learner came to the end of the job", extra={"error": str(error)})
            return False
        return True


class LeadingJob:
    """The first process's JobHandle, which tells the others what its three waiting methods said."""

    def __init__(self, job: JobHandle, channel: Channel) -> None:
        """Args: job; channel, to the others."""
        self._job, self._channel = job, channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)

    def pull(self, step: int, shards: int) -> list[ExperienceBatch]:
        """As JobHandle.pull."""
        batches = self._telling_the_end(lambda: self._job.pull(step, shards))
        self._channel.send({"batches": [pack(batch) for batch in batches]})
        return batches

    def raise_if_stopped(self) -> None:
        """As JobHandle.raise_if_stopped."""
        self._telling_the_end(self._job.raise_if_stopped)
        self._channel.send({})

    def raise_if_lost(self) -> None:
        """As JobHandle.raise_if_lost."""
        self._telling_the_end(self._job.raise_if_lost)
        self._channel.send({})

    def _telling_the_end(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as end:
            self._channel.send({"end": str(end)})
            raise


class FollowingJob:
    """What the others have in place of a JobHandle: the config, and what the first process tells. It writes nothing."""

    def __init__(self, job: str, store: ArtifactStore, channel: Channel) -> None:
        """Args: job, its id; store, the one that the first process sees; channel, from it."""
        self.id, self.store, self.folder, self._channel = job, store, store.job_folder(job), channel
        self.config = read_config(self.folder)

    def pull(self, step: int, shards: int) -> list[ExperienceBatch]:
        """The batches that the first process pulled."""
        return [unpack(data) for data in self._next()["batches"]]

    def raise_if_stopped(self) -> None:
        """Raises JobEnded when the first process must stop."""
        self._next()

    def raise_if_lost(self) -> None:
        """Raises JobEnded when the first process lost the job."""
        self._next()

    def event(self, *_: object, **__: object) -> None:
        """The first process tells."""

    enqueue = progress = acknowledge = discard = event

    def _next(self) -> dict[str, Any]:
        message = self._channel.receive()
        if "end" in message:
            raise JobEnded(message["end"])
        return message


class Processes:
    """This process's place among the learner's processes."""

    def __init__(self, settings: LearnerSettings) -> None:
        """Joins the others that torchrun started. Args: settings, the same in all."""
        cuda = settings.device == "cuda"
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend, timeout = "cpu:gloo,cuda:nccl" if cuda else "cpu:gloo", timedelta(seconds=settings.peer_timeout_s)
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        # torchrun's store outlives its processes: without a place of their own, those that it starts again would find
        # the addresses of dead ones.
        place = f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        store = dist.PrefixStore(place, store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
        self.settings, self.channel = settings, Channel(settings.peer_timeout_s)
        self.team = Team(rank, size, settings.device)

    def lead(self, job: JobHandle) -> None:
        """Runs a PPO job with the others.

        Raises:
            ProcessLost: one of them is gone.
        """
        try:
            self.channel.send({"job": job.id})
            self._run(cast(JobHandle, LeadingJob(job, self.channel)))
        except Exception as error:
            # What torch raises when it cannot reach another process is no type of its own.
            lost = type(error) is RuntimeError or isinstance(error, dist.DistError)
            if lost or not self.channel.meet():
                end_worker_after_this_job()
            if lost:
                message = f"the learner's processes lost each other, the log of each says more: {error}"
                job.event("process_lost", message, level="error")
                raise ProcessLost(message) from error
            raise
        if not self.channel.meet():
            end_worker_after_this_job()

    def follow(self) -> None:
        """Does what the first process does, job after job, until it says that all leave.

        Raises:
            RuntimeError: the first process is gone, or went on without this one.
        """
        while "job" in (message := self.channel.receive()):
            job = message["job"]
            try:
                following = FollowingJob(job, ArtifactStore(self.settings.store), self.channel)
                self._run(cast(JobHandle, following))
            except JobEnded as end:
                log.info("job ends", extra={"job": job, "reason": str(end)})
            except Exception:
                # Mostly the first process comes to the same error, and then to the meeting; if not, that ends here.
                log.exception("job failed in this process", extra={"job": job, "rank": self.team.rank})
            if not self.channel.meet():
                raise RuntimeError(f"process {self.team.rank} and the first one did not end job {job} together")

    def _run(self, job: JobHandle) -> None:
        # On the CPU: each layer moves to its device when it is sharded, so no device ever holds the whole model. For
        # each job anew, since sharding does not leave the model as it was.
        base = load_base_model(self.settings.model_copy(update={"device": "cpu"}))
        try:
            run_ppo(job, base, team=self.team)
        finally:
            del base
            gc.collect()


def lead_ppo(job: JobHandle, processes: Processes) -> None:
    """Entry point of PPO jobs in the first process."""
    processes.lead(job)


def run_reward_model_alone(job: JobHandle, processes: Processes) -> None:
    """Entry point of reward-model jobs: they are small, and the first process's alone."""
    run_reward_model(job, load_base_model(processes.settings))


def end_worker_after_this_job() -> None:
    """Lets Celery's worker record this job and then end with status 1: the processes no longer know where each is."""
    state.should_stop = 1


def run_processes(
    settings: LearnerSettings, run_learner: Callable[[LearnerSettings, Mapping[str, str], Callable[..., Any]], int]
) -> int:
    """One of the learner's processes, until all are told to stop.

    Args:
        settings: of the learner.
        run_learner: runs the Celery worker, in the first process alone.

    Returns:
        The exit status.
    """
    configure_logs(settings.log_level)
    leads = os.environ["RANK"] == "0"
    die_with_parent(signal.SIGTERM if leads else signal.SIGKILL)
    processes = Processes(settings)
    log.info("process joined", extra={"rank": processes.team.rank, "processes": processes.team.size})
    status = run_learner(settings, ENTRY_POINTS, lambda _: processes) if leads else _follow(processes)
    if status:
        # Taking the group down in order needs all processes.
        logging.shutdown()
        os._exit(status)
    if leads:
        processes.channel.send({"leave": True})
    dist.destroy_process_group()
    return 0


def die_with_parent(number: int) -> None:
    """Asks Linux for this signal when torchrun is killed: its processes would go on without anybody to end them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG


def _follow(processes: Processes) -> int:
    # The first process decides when all stop; one that left earlier would take the step with it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        processes.follow()
    except RuntimeError as error:
        log.warning("this process ends", extra={"rank": processes.team.rank, "error": str(error)})
        return 1
    return 0
