import json
from pathlib import Path

from rlhf.local.logtail import format_line, read_tail


def test_a_json_line_reads_as_text_with_its_fields() -> None:
    line = json.dumps({"time": "t", "level": "error", "logger": "policy", "message": "no model", "path": "/x"})
    assert format_line(line) == ["error policy: no model path=/x"]


def test_a_traceback_keeps_its_lines() -> None:
    line = json.dumps({"level": "error", "logger": "a", "message": "bug", "exception": "Traceback\nValueError: x"})
    assert format_line(line) == ["error a: bug", "Traceback", "ValueError: x"]


def test_other_lines_stay_as_they_are() -> None:
    assert format_line("Killed") == ["Killed"]
    assert format_line('{"unrelated": 1}') == ['{"unrelated": 1}']
    assert format_line("[1, 2]") == ["[1, 2]"]


def test_the_tail_is_the_end_of_the_file_and_empty_without_one(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert read_tail(log) == []
    log.write_text("\n".join(str(i) for i in range(100)))
    assert read_tail(log, lines=3) == ["97", "98", "99"]
