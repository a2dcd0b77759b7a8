"""The report page: complete, partial and hostile reports all render, and nothing from a model becomes markup."""

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlhf.evaluation.charts import label, line_chart, nice_ticks
from rlhf.evaluation.curves import tabulate_steps
from rlhf.evaluation.readings import missing_keys
from rlhf.evaluation.report import mark_repeats, show_number, write_report
from rlhf.evaluation.verdict import conclude, judge, kl_band, kl_late

TYPES = ["question", "how-to", "list", "rewrite", "advice", "small talk", "summary"]
VOID = {"meta", "br", "link", "img", "hr", "input"}


def curve(first: float, last: float, wobble: float, steps: int = 20) -> list[float]:
    return [first + (last - first) * i / (steps - 1) + wobble * math.sin(2.3 * i) for i in range(steps)]


def sample(i: int, *, after: bool) -> dict[str, Any]:
    looped = "You can ask your boss for more time. You can ask your boss for help too, because you can ask your"
    brief = "Yes, a short walk after lunch helps you stay awake. Keep it to ten minutes."
    return {
        "prompt": f"{TYPES[i % 7].capitalize()} number {i}: how do I stay awake after lunch when the office is warm?",
        "type": TYPES[i % 7],
        "response": brief if after else looped,
        "gold": 0.66 if after else 0.38,
        "proxy": 0.51 if after else -0.12,
        "uncertainty": 0.31,
        "finish_reason": "eos_token" if after else "length",
    }


def full_report() -> dict[str, Any]:
    """A run of 20 steps in which every claim holds."""
    return {
        "reward_model": {
            "members": 5,
            "train_pairs": 1020,
            "eval_pairs": 180,
            "accuracy_ensemble": 0.822,
            "accuracy_members": [0.789, 0.806, 0.778, 0.811, 0.794],
            "accuracy_length_baseline": 0.611,
            "ece": 0.043,
        },
        "ppo": {
            "steps": 20,
            "samples": 640,
            "tokens": 23104,
            "policy_loss": curve(-0.004, -0.012, 0.005),
            "value_loss": curve(0.62, 0.21, 0.04),
            "kl_sequence": [0.0, *curve(0.04, 0.36, 0.03, 19)],
            "kl_token": [0.0, *curve(0.001, 0.010, 0.001, 19)],
            "kl_target": 0.3,
            "beta": curve(0.25, 0.31, 0.005),
            "reward_mean": curve(-0.08, 0.52, 0.08),
            "uncertainty_mean": curve(0.36, 0.29, 0.02),
            "entropy": curve(1.62, 1.38, 0.05),
            "clip_fraction": curve(0.05, 0.14, 0.02),
            "explained_variance": [-3.5, *curve(-0.4, 0.48, 0.08, 19)],
            "ratio_first_minibatch": curve(1.0, 1.0, 2e-6),
            "response_length": curve(37.8, 31.2, 0.8),
            "eos_rate": curve(0.18, 0.51, 0.04),
        },
        "before": {
            "gold_mean": 0.412,
            "proxy_mean": -0.031,
            "uncertainty_mean": 0.352,
            "rep4": 0.018,
            "distinct2": 0.71,
            "eos_rate": 0.17,
            "length_mean": 37.9,
            "samples": [sample(i, after=False) for i in range(21)],
        },
        "after": {
            "gold_mean": 0.574,
            "proxy_mean": 0.498,
            "uncertainty_mean": 0.301,
            "rep4": 0.012,
            "distinct2": 0.69,
            "eos_rate": 0.46,
            "length_mean": 32.4,
            "samples": [sample(i, after=True) for i in range(21)],
        },
        "win_rate": {"gold": 0.62, "gold_ci95": [0.547, 0.693], "n": 96},
        "warnings": [],
        "seeds": {"run": 0, "reward_model": 1, "ppo": 2, "evaluation": [3, 4]},
        "durations_s": {"start": 21.4, "reward_model": 171.0, "ppo": 583.2, "evaluation": 84.0, "all": 3725.0},
        "peak_memory_mib": {"policy": 1104.0, "reward": 913.4, "learner": 2290.9, "total": 5012.2},
        "versions": {"rlhf-services": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
    }


WARNINGS: list[Any] = [
    {
        "name": "clip_fraction_high",
        "step": 7,
        "message": "More than half of the tokens were clipped.",
        "value": 0.534,
        "threshold": 0.5,
        "hint": "lower the learning rate",
        "phase": "update",
    },
    {"name": "eos_rate_low", "message": "Few responses end by themselves."},
    "the reward service was restarted once",
]


class Page(HTMLParser):
    """Collects tags, their attributes and the text, and checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += " ".join(data.split()) + " "

    def count(self, tag: str, name: str = "") -> int:
        return sum(
            t == tag and name in (attrs.get("class") or "").split() if name else t == tag for t, attrs in self.tags
        )


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
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image", "use"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name in ("src", "xlink:href", "srcset", "action")]
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html
    assert "@import" not in html
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


def test_gaps_split_the_line_and_are_counted(tmp_path: Path) -> None:
    report = full_report()
    report["ppo"]["entropy"] = [1.0, 1.0, None, 1.0, float("nan"), 1.0, 1.0, float("inf")]
    chart = line_chart([1.0, 2.0, None, 3.0, None, 4.0, 5.0], title="T", unit="u")
    assert chart.count("<polyline") == 2  # steps 0-1 and 5-6; step 3 alone is a dot
    assert chart.count('class="dot"') == 5
    assert "7 steps: first 1, last 5, lowest 1, highest 5, 2 without a value" in chart
    page, _ = render(report, tmp_path)
    assert "3 of 8 steps have no finite value." in page.text
    assert tabulate_steps(report)[2][9] is None


def test_a_long_series_is_a_line_and_lone_values_stay_visible() -> None:
    values: list[float | None] = [float(i) for i in range(200)]
    assert 'class="dot"' not in line_chart(values, title="T", unit="u")
    values[100] = values[102] = None
    assert line_chart(values, title="T", unit="u").count('class="dot"') == 1


def test_positions_follow_the_scale() -> None:
    # Width 360, margins 48 and 12: steps 0, 1, 2 lie at 48, 198, 348. Height 210, margins 24 and 36: on an axis from 0
    # to 10 the values 0, 5, 10 lie at 174, 99, 24.
    chart = line_chart([0.0, 5.0, 10.0], title="T", unit="u")
    assert 'class="series" points="48.0,174.0 198.0,99.0 348.0,24.0"' in chart


def test_values_below_the_floor_are_hollow_dots_at_the_edge() -> None:
    chart = line_chart([-7.0, 0.0, 1.0], title="T", unit="u", floor=-1)
    assert chart.count('class="dot out"') == 1
    assert "step 0: -7 u" in chart
    assert "48.0,174.0" in chart  # the lower end of the axis


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),  # 1 / 5 = 0.2
        (-3.0, 7.0, [-4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0]),  # 10 / 5 = 2
        (0.0, 0.36, [0.0, 0.1, 0.2, 0.3, 0.4]),  # 0.072 is rounded up to 0.1
        (2.0, 2.0, [1.8, 1.9, 2.0, 2.1, 2.2]),  # 10 % to either side: 0.4 / 5 = 0.08 is rounded up to 0.1
        (0.0, 0.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_numbers_are_written_with_the_digits_they_need() -> None:
    assert [label(value, 0.05) for value in (0.0, 0.15, -0.1)] == ["0.00", "0.15", "−0.10"]
    assert label(1500, 500) == "1,500"
    assert label(2e-6, 1e-6) == "2e−06"
    assert [show_number(each) for each in (0.41234, 0.00002, 0, 23104, None, float("nan"), True, "x", -1.5)] == [
        *("0.412", "2e−05", "0.000", "23,104.000", "–", "–", "–", "–", "−1.500")
    ]
    assert show_number(23104, 0) == "23,104"


def test_every_claim_fails_on_a_bad_run() -> None:
    report = full_report()
    report["reward_model"] |= {"accuracy_ensemble": 0.60, "accuracy_length_baseline": 0.61}
    report["ppo"] |= {"policy_loss": [0.0, 0.0], "ratio_first_minibatch": [1.0, 1.002], "kl_sequence": [-2.0, -1.0]}
    report["before"], report["after"] = report["after"], report["before"]
    report["after"]["distinct2"] = 0.62  # 0.9 × 0.69 = 0.621
    report["win_rate"] = {"gold": 0.4, "gold_ci95": [0.31, 0.49], "n": 96}
    assert [claim.text for claim in judge(report) if claim.holds is not False] == []
    assert conclude(report).tone == "bad"
    assert "11 of 11 checks fail" in conclude(report).sentences[-1]


def test_an_interval_that_holds_half_is_no_clear_change() -> None:
    report = full_report() | {"win_rate": {"gold": 0.53, "gold_ci95": (0.48, 0.58), "n": 96}}
    assert conclude(report).headline.startswith("No clear change")
    assert conclude(report).tone == "mixed"


def test_the_late_kl_is_the_median_of_the_last_half() -> None:
    # The last half of five steps is the last three; the gap does not count: the median of 0.2 and 0.4.
    report = {"ppo": {"kl_sequence": [9.0, 9.0, 0.2, None, 0.4]}}
    assert kl_late(report) == pytest.approx(0.3)
    assert kl_late({}) is None


def test_the_kl_band_follows_the_target() -> None:
    assert kl_band({}) == (0.1, 0.5)
    assert kl_band({"ppo": {"kl_target": 0.3}}) == (0.1, 0.5)
    assert kl_band({"ppo": {"kl_target": 6.0}}) == pytest.approx((2.0, 10.0))  # 6 / 3 and 6 × 5 / 3


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
