"""A job's metrics as TensorBoard event files, in `tensorboard/` of its folder. For people; nothing here reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

FOLDER = "tensorboard"


class Board:
    """Writes one attempt's curves. What a step repeats after a crash replaces what was there, as in metrics.jsonl.

    It uses the library's file writer alone: its SummaryWriter brings a thread and a queue, which a crash would lose.
    """

    def __init__(self, folder: Path) -> None:
        """Args: folder, the job's."""
        self._folder = folder / FOLDER
        self._writer: EventsWriter | None = None
        self._last = 0

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a point to each curve; in the file when this returns. Args: metrics, finite ones."""
        writer = self._writer
        if writer is None or step <= self._last:
            writer = self._begin(step)
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        writer.flush()
        self._last = step

    def close(self) -> None:
        """Ends the file; the next write begins another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _begin(self, step: int) -> EventsWriter:
        self.close()
        self._folder.mkdir(exist_ok=True)
        # The name has the time in seconds, and two attempts may begin within one.
        writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
        # Tells TensorBoard to forget the points from this step on which earlier files have.
        writer.write_event(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))
        self._writer = writer
        return writer
