"""Datasets: the majority's pairs, in versions, for download and for training."""

import io
import json
import re
import sys
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from rlhf.data.formats import read_preferences
from tests.contract.console.conftest import csrf_of
from tests.contract.console.judging import current, judge, judge_all, make_study, pair

Newcomer = Callable[[str], TestClient]
SERVICES_KEY = {"Authorization": "Bearer the key of services"}


def freeze(browser: TestClient, study: int):
    return browser.post("/datasets", data={"csrf": csrf_of(browser.get("/datasets")), "study": str(study)})


@pytest.fixture
def study(browser: TestClient, newcomer: Newcomer) -> int:
    """Of which two pairs have a majority."""
    found = make_study(browser, [pair(f"P{number}") for number in range(5)] + [pair("G", gold="a")])
    judge_all(newcomer("Anna"), found, {"P0": "ay", "P1": "bee", "P2": "tie", "P3": "ay", "P4": "both_bad", "G": "ay"})
    judge_all(newcomer("Bert"), found, {"P0": "ay", "P1": "bee", "P2": "tie", "P3": "bee", "P4": "both_bad", "G": "ay"})
    return found


def test_the_majority_is_frozen_and_the_rest_is_counted(browser: TestClient, study: int) -> None:
    place = freeze(browser, study).headers["location"]
    answer = browser.get(f"{place}/rows.jsonl")
    assert answer.headers["content-disposition"] == f'attachment; filename="study-{study}-v1.jsonl"'
    rows = sorted((json.loads(line) for line in answer.text.splitlines()), key=lambda row: row["prompt"][0]["content"])
    assert rows[1] == {
        "prompt": [{"role": "user", "content": "P1"}],
        "chosen": [{"role": "assistant", "content": "bee"}],
        "rejected": [{"role": "assistant", "content": "ay"}],
        "policies": {"chosen": "ppo-1@3", "rejected": "base"},
        "votes": {"chosen": 2, "rejected": 0, "neither": 0},
    }
    read = read_preferences(rows)
    assert (read.format, len(read.pairs)) == ("conversational", 2), "as `rlhf train` reads it"
    page = re.sub(r"\s+", " ", browser.get(place).text)
    counts = {"as good": 1, "both bad": 1, "without a majority": 1, "not judged": 0, "to check attention": 1}
    for reason, count in counts.items():
        assert f"<dt>Left out: {reason}</dt><dd>{count}</dd>" in page


def test_a_version_stays_as_it_was(browser: TestClient, newcomer: Newcomer, study: int) -> None:
    first = freeze(browser, study).headers["location"]
    assert freeze(browser, study).headers["location"] == first, "nothing was judged since"
    before = browser.get(f"{first}/rows.jsonl").content
    clara = newcomer("Clara")
    while (place := current(clara, study)) is not None:
        judge(clara, place, "ay")
    second = freeze(browser, study).headers["location"]
    assert second != first
    assert browser.get(f"{first}/rows.jsonl").content == before
    # P3 has now two votes of three for ay.
    assert len(browser.get(f"{second}/rows.jsonl").text.splitlines()) == 3
    assert f"study-{study}-v2" in browser.get(f"{second}/rows.jsonl").headers["content-disposition"]


def test_a_study_without_a_majority_is_no_dataset(browser: TestClient) -> None:
    answer = freeze(browser, make_study(browser, [pair("P")]))
    assert answer.status_code == 409
    assert "1 unjudged" in answer.text
    assert browser.post("/datasets", data={"csrf": csrf_of(answer), "study": "x"}).status_code == 422


def test_parquet_where_it_can_be_written(browser: TestClient, study: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    place = freeze(browser, study).headers["location"]
    rows = [json.loads(line) for line in browser.get(f"{place}/rows.jsonl").text.splitlines()]
    assert parquet.read_table(io.BytesIO(browser.get(f"{place}/rows.parquet").content)).to_pylist() == rows
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = browser.get(f"{place}/rows.parquet")
    assert answer.status_code == 409
    assert "rlhf-services[data]" in answer.text
    assert browser.get(f"{place}/rows.csv").status_code == 422


def test_one_click_trains_a_reward_model_on_it(browser: TestClient, trainer: TestClient, study: int) -> None:
    place = freeze(browser, study).headers["location"]
    page = browser.get(place)
    form = {"csrf": csrf_of(page), "key": re.search(r'name="key" value="([^"]+)"', page.text).group(1)}
    jobs = {browser.post(f"{place}/train", data=form).headers["location"] for _ in range(2)}
    assert len(jobs) == 1, "a double click is one job"
    job = jobs.pop().removeprefix("/jobs/")
    config = trainer.get(f"/jobs/{job}/artifacts/config.json", headers=SERVICES_KEY).json()
    assert config["kind"] == "reward_model"
    assert sorted(each["prompt"][0]["content"] for each in config["pairs"]) == ["P0", "P1"]
    assert config["batch_size"] == 16  # of configs/reward-500.json
    assert browser.get(place).text.count(f'href="/jobs/{job}"') == 1
    assert browser.post(f"{place}/train", data={"csrf": form["csrf"]}).status_code == 422


def test_too_few_pairs_are_told(browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, [pair("P")])
    judge_all(newcomer("Anna"), study, {"P": "ay"})
    place = freeze(browser, study).headers["location"]
    answer = browser.post(f"{place}/train", data={"csrf": csrf_of(browser.get(place)), "key": "0" * 32})
    assert answer.status_code == 422
    assert "at least 2 items" in answer.text
