import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlhf.contracts.jobs import JobEvent
from rlhf.demo.outcome import (
    PPO_SERIES,
    REWARD_MODEL_KEYS,
    ResultIncomplete,
    collect_warnings,
    describe_ppo,
    describe_reward_model,
    render,
    write_results,
)
from rlhf.evaluation.readings import EXPECTED


def row(step: int, **values: Any) -> dict[str, Any]:
    base = dict.fromkeys(PPO_SERIES, 0.5) | {"step": step, "time": 1.0, "samples": 32.0, "tokens": 1000.0}
    return base | {"kl_target": 0.3, "tokens_per_s": 60.0} | values


def test_the_keys_are_those_that_the_report_expects() -> None:
    assert set(REWARD_MODEL_KEYS) == set(EXPECTED["reward_model"])
    assert set(PPO_SERIES) | {"steps", "samples", "tokens", "kl_target"} == set(EXPECTED["ppo"])


def test_rows_become_one_list_a_series() -> None:
    ppo = describe_ppo([row(1, policy_loss=0.1), row(2, policy_loss=None)])
    assert (ppo["steps"], ppo["samples"], ppo["tokens"], ppo["kl_target"]) == (2, 64, 2000, 0.3)
    assert ppo["policy_loss"] == [0.1, None]
    assert ppo["tokens_per_s"] == [60.0, 60.0]
    assert "time" not in ppo


def test_missing_numbers_are_named() -> None:
    with pytest.raises(ResultIncomplete, match="reports no step"):
        describe_ppo([])
    short = row(1)
    del short["beta"]
    with pytest.raises(ResultIncomplete, match="lack beta"):
        describe_ppo([short])
    with pytest.raises(ResultIncomplete, match=r"lacks .*ece"):
        describe_reward_model({"members": 5})


def test_warnings_are_watchdogs_other_warnings_and_claims_that_do_not_hold() -> None:
    watchdog = JobEvent(
        id="1", time=0, kind="watchdog", name="kl_exploded", message="KL", data={"step": 4, "value": 9.0}
    )
    dropped = JobEvent(id="2", time=0, kind="log", level="warning", name="samples_dropped", message="1 of 32")
    told = JobEvent(id="3", time=0, kind="log", name="sample", message="the best")
    accuracies = {"reward_model": {"accuracy_ensemble": 0.7, "accuracy_length_baseline": 0.6}}
    found = collect_warnings([watchdog, dropped, told], accuracies)
    assert [each["name"] for each in found[:2]] == ["kl_exploded", "samples_dropped"]
    assert (found[0]["step"], found[0]["value"]) == (4, 9.0)
    claims = [each["message"] for each in found[2:]]
    # 0.7 is not above 0.75, but above the 0.6 of length alone.
    assert any("above 75%: does not hold (70.0%)" in claim for claim in claims)
    assert not any("length alone" in claim for claim in claims)


def test_results_are_strict_json_and_the_page_lists_no_claim_as_an_event(tmp_path: Path) -> None:
    report = {"ppo": {"entropy": [math.nan, 1.0]}, "warnings": [{"kind": "claim", "message": "CLAIM-TEXT"}]}
    write_results(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["ppo"]["entropy"] == [None, 1.0]
    page = (tmp_path / "report.html").read_text()
    assert "CLAIM-TEXT" not in page
    render({"warnings": [{"kind": "watchdog", "message": "DOG-TEXT"}]}, tmp_path / "again.html")
    assert "DOG-TEXT" in (tmp_path / "again.html").read_text()
