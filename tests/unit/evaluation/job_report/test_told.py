"""What a report chooses of a job's events and settings, and how it words them."""

from typing import Any

import pytest

from rlhf.contracts.jobs import JobEvent
from rlhf.evaluation.formats import show_prompt
from rlhf.evaluation.job_report.described import list_settings
from rlhf.evaluation.job_report.told import choose_events, choose_samples, collect_warnings
from rlhf.evaluation.tables import span


def event(name: str, *, kind: str = "log", level: str = "info", **data: Any) -> JobEvent:
    return JobEvent(id="1-0", time=0.0, kind=kind, level=level, name=name, message=name, data=data)


def test_samples_are_taken_evenly_with_the_first_and_the_last() -> None:
    samples, count = choose_samples([event("sample", step=step, response="r") for step in range(1, 101)])
    # 12 of 100: positions i · 99/11 = 9 i.
    assert [sample["step"] for sample in samples] == list(range(1, 101, 9))
    assert count == 100
    assert [sample["step"] for sample in choose_samples([event("sample", step=7)])[0]] == [7]
    assert choose_samples([]) == ([], 0)


def test_errors_come_before_warnings_and_information_is_neither() -> None:
    events = [event("old", level="warning"), event("fine"), event("dead", level="error"), event("old", level="warning")]
    told = collect_warnings(events)
    assert [(each["name"], each["step"]) for each in told] == [("dead", None), ("old", "2 ×")]


def test_the_last_events_are_shown_and_the_others_counted() -> None:
    events = [event("sample"), event("step", kind="progress"), *(event(f"e{i}") for i in range(103))]
    shown, older = choose_events(events)
    assert (shown[0]["name"], shown[-1]["name"], older) == ("e3", "e102", 3)


@pytest.mark.parametrize(
    ("steps", "told"), [([], "–"), ([4], "4"), ([4, 4], "4 (2 ×)"), ([3, 9, 5], "3–9 (3 ×)"), ([0, 1], "0–1 (2 ×)")]
)
def test_steps_are_told_as_a_span(steps: list[int], told: str) -> None:
    assert span(steps) == told


def test_settings_are_paths_and_data_is_counted() -> None:
    config = {
        "kind": "ppo",
        "prompts": [[{"role": "user", "content": "secret"}]] * 1234,
        "update": {"learning_rate": 1e-5, "whiten_advantages": True},
        "full": None,
        "responses": {"metrics": [{"name": "brief"}, {"name": "valid"}], "stop": ["END"], "references": ["x" * 41]},
    }
    assert dict(list_settings(config)) == {
        "prompts": "1,234",
        "update.learning_rate": "1e-05",
        "update.whiten_advantages": "true",
        "full": "none",
        "responses.metrics": "brief, valid",
        "responses.stop": "END",
        "responses.references": "1",
    }


def test_a_conversation_names_its_roles_and_a_single_turn_does_not() -> None:
    assert show_prompt("Hi") == show_prompt([{"role": "user", "content": "Hi"}]) == "Hi"
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert show_prompt(turns) == "system: Be kind.\n\nuser: Hi"
    assert show_prompt(None) == "–"
