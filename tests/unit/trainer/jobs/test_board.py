import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog

from services.trainer.jobs.board import Board


def read_events(file: Path) -> list[Event]:
    """The records of an event file: length, its checksum, an Event, its checksum."""
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: the files in order, each restart at a step forgets the points from there on."""
    shown: dict[str, dict[int, float]] = {}
    for file in sorted((folder / "tensorboard").iterdir(), key=lambda each: each.stat().st_mtime_ns):
        for event in read_events(file):
            if event.session_log.status == SessionLog.START:
                shown = {tag: {s: v for s, v in curve.items() if s < event.step} for tag, curve in shown.items()}
            for value in event.summary.value:
                shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def test_every_metric_is_a_curve_over_the_steps_and_on_disk_at_once(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step in (1, 2, 3):
        board.write(step, {"kl_sequence": 0.5 * step, "reward_mean": -1.0})
    assert curves(tmp_path) == {"kl_sequence": {1: 0.5, 2: 1.0, 3: 1.5}, "reward_mean": dict.fromkeys((1, 2, 3), -1.0)}
    board.close()


def test_steps_done_again_after_a_crash_replace_the_first_ones(tmp_path: Path) -> None:
    first = Board(tmp_path)
    for step in (1, 2, 3):
        first.write(step, {"loss": 1.0})
    second = Board(tmp_path)  # the first was never closed
    second.write(2, {"loss": 0.25})
    assert curves(tmp_path) == {"loss": {1: 1.0, 2: 0.25}}
    first.close()
    second.close()
