import json
from pathlib import Path

import pytest

from rlhf import cli
from rlhf.cli_requests import RequestFailed, find_service


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RLHF_POLICY_URL", "RLHF_REWARD_URL", "RLHF_TRAINER_URL", "RLHF_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def write_endpoints(folder: Path) -> None:
    path = folder / "runs" / "serve" / "endpoints.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"policy": "http://p", "reward": "http://r", "trainer": "http://t", "api_key": "k"}))


def locate(*arguments: str) -> tuple[str, str | None]:
    return find_service(cli.build_parser().parse_args(["generate", "Hi", *arguments]), "policy")


def test_a_service_is_found_by_option_then_environment_then_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_endpoints(tmp_path)
    assert locate() == ("http://p", "k")
    monkeypatch.setenv("RLHF_POLICY_URL", "http://environment")
    monkeypatch.setenv("RLHF_API_KEY", "other")
    assert locate() == ("http://environment", "other")
    (tmp_path / "key").write_text("from file\n")
    assert locate("--url", "http://option", "--api-key-file", "key") == ("http://option", "from file")


def test_without_any_url_the_command_says_how_to_give_one() -> None:
    with pytest.raises(RequestFailed, match=r"start `rlhf serve`, or give --url or RLHF_POLICY_URL"):
        locate()


def test_a_failure_is_one_line_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["jobs", "list"]) == 1
    assert capsys.readouterr().err.startswith("rlhf: no URL of trainer: runs/serve/endpoints.json does not exist")


def test_a_request_out_of_bounds_is_refused_before_it_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_endpoints(tmp_path)
    assert cli.main(["generate", "Hi", "--temperature", "-1"]) == 1
    assert "sampling.temperature: Input should be greater than or equal to 0 (got -1.0)" in capsys.readouterr().err


def test_a_job_file_that_is_not_json_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_endpoints(tmp_path)
    (tmp_path / "job.json").write_text("{")
    assert cli.main(["jobs", "submit", "job.json"]) == 1
    assert "cannot read the job job.json" in capsys.readouterr().err


def test_the_report_is_rendered_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"warnings": []}))
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "<html" in (tmp_path / "report.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert cli.main(["report", "absent"]) == 1
    assert "`rlhf demo` writes it" in capsys.readouterr().err


def test_a_preset_that_cannot_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--config", "absent.json", "--out", "out"]) == 1
    assert "cannot read the preset absent.json" in capsys.readouterr().err
    assert not (tmp_path / "out" / "logs").exists()


PAIR = {"prompt": "Hi", "chosen": "good", "rejected": "bad"}


def test_preference_data_becomes_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({**PAIR, "prompt": f"Hi {i}", "unknown": "column"}) for i in range(6)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    (tmp_path / "settings.json").write_text('{"members": 3}')
    arguments = ["train", "pairs.jsonl", "--pairs", "4", "--settings", "settings.json", "--out", "job.json"]
    assert cli.main(arguments) == 0
    job = json.loads((tmp_path / "job.json").read_text())
    assert (job["kind"], job["members"], len(job["pairs"])) == ("reward_model", 3, 4)
    told = capsys.readouterr().err
    assert "pairs.jsonl: 6 rows of the format plain\n4 of 6 pairs chosen\n" in told


@pytest.mark.parametrize(
    ("content", "settings", "told"),
    [
        ('{"text": "x"}', "{}", "pairs.jsonl: no known format fits all rows: row 1 has text: str"),
        (json.dumps(PAIR), "{}", "pairs: List should have at least 2 items"),
        (json.dumps(PAIR), "[]", "settings.json holds list; send an object"),
        (json.dumps(PAIR), '{"epochs": 9}', "epochs: Input should be less than or equal to 5 (got 9)"),
    ],
)
def test_data_that_makes_no_job_is_refused(tmp_path: Path, capsys, content: str, settings: str, told: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(content)
    (tmp_path / "settings.json").write_text(settings)
    assert cli.main(["train", "pairs.jsonl", "--settings", "settings.json", "--out", "job.json"]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "job.json").exists()
