"""Charts: hand-derived positions, ticks and gaps."""

from __future__ import annotations

import re

import pytest

from rlhf.evaluation.charts import label, line_chart, nice_ticks


def test_gaps_split_the_line() -> None:
    chart = line_chart([1.0, 2.0, None, 3.0, None, 4.0, 5.0], title="T", unit="u")
    assert chart.count("<polyline") == 2  # steps 0-1 and 5-6; step 3 alone is a dot
    assert chart.count('class="dot"') == 5
    assert "7 steps: first 1, last 5, lowest 1, highest 5, 2 without a value" in chart


def test_tick_labels_have_the_digits_they_need() -> None:
    assert [label(value, 0.05) for value in (0.0, 0.15, -0.1)] == ["0.00", "0.15", "−0.10"]
    assert label(1500, 500) == "1,500"
    assert label(2e-6, 1e-6) == "2e−06"


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
        (0.0, 0.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_a_value_just_below_a_tick_has_no_tick_under_it() -> None:
    # Ticks 2 apart: -0.3 is 0.15 of the way from 0 to -2; the axis ends a tenth of it lower, at -0.5.
    svg = line_chart([-0.3, 5.0, 8.0], title="KL", unit="nats")
    assert re.findall(r'class="tick y"[^>]*>([^<]+)<', svg) == ["0", "2", "4", "6", "8"]
    # HEIGHT - BOTTOM = 174 is -0.5 and TOP = 24 is 8: 150 / 8.5 = 17.647 a nat.
    ys = [float(y) for y in re.findall(r'class="hit" cx="[^"]*" cy="([^"]*)"', svg)]
    assert ys == [round(174 - 0.2 * 17.647, 1), round(174 - 5.5 * 17.647, 1), 24.0]
    assert re.findall(r'class="tick y"[^>]*>([^<]+)<', line_chart([-1.0, 8.0], title="KL", unit="nats"))[0] == "−2"
