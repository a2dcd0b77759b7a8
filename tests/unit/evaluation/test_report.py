"""The report page: complete, partial and hostile reports all render, and nothing from a model becomes markup."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from rlhf.evaluation.curves import tabulate_steps
from rlhf.evaluation.formats import mark_repeats, show_number
from rlhf.evaluation.readings import missing_keys
from rlhf.evaluation.report import write_report
from tests.html_page import Page, asks_for_nothing
from tests.sample_report import WARNINGS, full_report


def render(report: dict[str, Any], tmp_path: Path) -> tuple[Page, str]:
    path = tmp_path / "runs" / "report.html"
    write_report(report, path)
    html = path.read_text(encoding="utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    return Page(html), html


def test_a_good_run_is_told_completely(tmp_path: Path) -> None:
    page, html = render(full_report(), tmp_path)
    assert "The policy learned" in page.text
    assert "Nothing went wrong: all 11 checks hold" in page.text
    assert "incomplete" not in page.text
    assert "No watchdog fired." in page.text
    assert "62.0%" in page.text
    assert "54.7% to 69.3%" in page.text
    assert page.count("article") == 10
    assert page.count("figure") == 13 + 1  # the curves and the win rate
    assert page.count("svg") == 13 + 1 + 7  # and a bar for the ensemble, its 5 members and the length baseline
    assert "1 h 02 min" in page.text  # 3725 s = 62 min 5 s
    assert "2 min 51 s" in page.text  # 171 s
    assert "nan" not in html.lower().replace("nance", "")


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(tmp_path: Path) -> None:
    page, html = render(full_report(), tmp_path)
    assert asks_for_nothing(page, html)
    assert ("default-src 'none'; style-src 'unsafe-inline'") in html


def test_every_link_and_label_has_its_target(tmp_path: Path) -> None:
    page, _ = render(full_report(), tmp_path)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for target in (attributes.get("href", "")[1:], attributes.get("aria-labelledby", "")):
            assert not target or target in ids
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>&amp;"])
def test_text_from_outside_is_escaped(hostile: str, tmp_path: Path) -> None:
    def report_with(text: str) -> dict[str, Any]:
        report = full_report()
        for side in ("before", "after"):
            report[side]["samples"][0] |= dict.fromkeys(("prompt", "type", "response", "finish_reason"), text)
        report["warnings"] = [dict.fromkeys((*WARNINGS[0], text), text), text]
        report["versions"] = report["seeds"] = {text: text}
        return report

    harmless, _ = render(report_with("harmless"), tmp_path)
    page, html = render(report_with(hostile), tmp_path)
    assert page.tags == harmless.tags
    assert hostile not in html
    assert page.text.count(hostile) == harmless.text.count("harmless")


def test_repeated_four_grams_are_marked_and_the_rest_escaped() -> None:
    # "a b c d" twice; the words in between repeat nothing.
    assert mark_repeats("a b c d <i> a b c d") == "<mark>a b c d</mark> &lt;i&gt; <mark>a b c d</mark>"
    assert mark_repeats("one two three one two three") == "one two three one two three"  # no four words in a row twice
    assert mark_repeats("") == ""


def test_every_watchdog_event_is_shown(tmp_path: Path) -> None:
    page, html = render(full_report() | {"warnings": WARNINGS}, tmp_path)
    for text in ("clip_fraction_high", "0.534", "0.500", "lower the learning rate", "phase: update", "eos_rate_low"):
        assert text in page.text
    assert "the reward service was restarted once" in page.text
    assert "To look at: 3 watchdog events." in page.text
    assert html.count("watchdog event at step 7") == 13  # a line in each curve


@pytest.mark.parametrize("key", [*full_report(), "everything"])
def test_a_report_without_a_part_says_so(key: str, tmp_path: Path) -> None:
    report = {} if key == "everything" else {name: part for name, part in full_report().items() if name != key}
    page, _ = render(report, tmp_path)
    assert "This report is incomplete." in page.text
    assert "Nothing went wrong" not in page.text or key not in ("reward_model", "ppo", "before", "after", "win_rate")
    if key in ("win_rate", "everything"):
        assert "Not judged" in page.text
    if key in ("warnings", "everything"):
        assert "whether a watchdog fired is unknown" in page.text
    if key in ("ppo", "everything"):
        assert page.text.count("No values to draw") == 13


def test_absent_keys_null_keys_and_wrong_kinds_render(tmp_path: Path) -> None:
    for broken in (None, [], "text", float("nan"), [None], {"a": 1}):
        report = full_report()
        for part in (each for each in report.values() if isinstance(each, dict)):
            part.update(dict.fromkeys(part, broken))
        page, _ = render(report, tmp_path)
        assert "Not judged" in page.text
        render(dict.fromkeys(report, broken), tmp_path)


def test_a_run_of_one_step_renders(tmp_path: Path) -> None:
    report = full_report()
    report["ppo"] = {k: v[:1] if isinstance(v, list) else v for k, v in report["ppo"].items()} | {"steps": 1}
    page, html = render(report, tmp_path)
    assert "<polyline" not in html
    assert page.count("g", "dot") == 13
    assert "1 of 11 checks cannot be told" in page.text  # whether the policy loss changes


def test_missing_keys_are_named() -> None:
    report = full_report()
    report["ppo"]["entropy"] = []
    del report["win_rate"]["gold_ci95"]
    report["versions"] = None
    assert missing_keys(report) == ["ppo.entropy", "win_rate.gold_ci95", "versions"]
    assert missing_keys(full_report()) == []


def test_gaps_are_counted(tmp_path: Path) -> None:
    report = full_report()
    report["ppo"]["entropy"] = [1.0, 1.0, None, 1.0, float("nan"), 1.0, 1.0, float("inf")]
    page, _ = render(report, tmp_path)
    assert "3 of 8 steps have no finite value." in page.text
    assert tabulate_steps(report)[2][9] is None


def test_numbers_are_written_with_the_digits_they_need() -> None:
    assert [show_number(each) for each in (0.41234, 0.00002, 0, 23104, None, float("nan"), True, "x", -1.5)] == [
        *("0.412", "2e−05", "0.000", "23,104.0", "–", "–", "–", "–", "−1.500")
    ]
    assert show_number(23104, 0) == "23,104"


def test_prompts_are_taken_in_turn_from_each_type(tmp_path: Path) -> None:
    page, _ = render(full_report(), tmp_path)
    # 21 prompts of 7 types in turn: the first of each type, then the second of three types.
    shown = re.findall(r"number (\d+):", page.text)
    assert shown == [str(i) for i in range(10)]
    report = copy.deepcopy(full_report())
    for i, each in enumerate(report["before"]["samples"]):
        each["type"] = "list" if i < 19 else "advice"
    shown = re.findall(r"number (\d+):", render(report, tmp_path)[0].text)
    assert shown == [*map(str, range(8)), "19", "20"]  # both of the rare type are in


def test_a_prompt_answered_twice_is_shown_once(tmp_path: Path) -> None:
    report = full_report()
    for side in ("before", "after"):
        once = [{**sample, "id": f"prompt-{i}"} for i, sample in enumerate(report[side]["samples"])]
        report[side]["samples"] = [sample for sample in once for _ in "ab"]
    write_report(report, tmp_path / "report.html")
    assert f"of {len(report['before']['samples']) // 2} held-out prompts" in (tmp_path / "report.html").read_text()
