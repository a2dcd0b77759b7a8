"""metrics.jsonl."""

from pathlib import Path

from services.trainer.jobs.series import FILE, SeriesWriter, read_series


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    assert read_series(tmp_path) == []
    writer = SeriesWriter(tmp_path)
    for step in (1, 2):
        writer.write({"step": step, "kl": step / 2})
    assert read_series(tmp_path) == [{"step": 1, "kl": 0.5}, {"step": 2, "kl": 1.0}]


def test_a_resumed_job_replaces_what_it_repeats(tmp_path: Path) -> None:
    first = SeriesWriter(tmp_path)
    for step in (1, 2, 3):
        first.write({"step": step, "attempt": 1})
    second = SeriesWriter(tmp_path)
    second.write({"step": 2, "attempt": 2})
    assert read_series(tmp_path) == [{"step": 1, "attempt": 1}, {"step": 2, "attempt": 2}]
    second.write({"step": 3, "attempt": 2})
    assert [row["attempt"] for row in read_series(tmp_path)] == [1, 2, 2]


def test_a_row_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    SeriesWriter(tmp_path).write({"step": 1})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 2, "kl"')
    assert read_series(tmp_path) == [{"step": 1}]
    SeriesWriter(tmp_path).write({"step": 2})
    assert read_series(tmp_path) == [{"step": 1}, {"step": 2}]
