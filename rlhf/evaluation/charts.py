"""Charts as inline SVG: pure functions from numbers to markup, coloured by the page's CSS, without JavaScript."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Values = Sequence[float | None]

# The unit of all lengths below is the SVG user unit, one CSS pixel where a chart is drawn at its natural width.
WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 24, 36
MOST_DOTS = 64  # longer series are drawn as a line alone
MOST_BELOW = 0.2  # of the way between two ticks: what reaches less below the lower one has no tick under it


@dataclass(frozen=True)
class Band:
    """A horizontal band of wanted values behind the line."""

    low: float
    high: float
    label: str


@dataclass(frozen=True)
class _Frame:
    """Maps steps and values to positions inside the axes."""

    steps: int
    low: float
    high: float

    def x(self, step: float) -> float:
        share = step / (self.steps - 1) if self.steps > 1 else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def line_chart(
    values: Values,
    *,
    title: str,
    unit: str,
    spread: Values = (),
    band: Band | None = None,
    reference: float | None = None,
    include: Sequence[float] = (),
    floor: float | None = None,
    marks: Sequence[int] = (),
    steps: str = "PPO step",
) -> Markup:
    """Draw one value a PPO step; steps without a value are gaps.

    Args:
        values: One a step, from step 0; None for a gap.
        title: Said to screen readers with the first, last and extreme values; not drawn.
        unit: Label of the y axis.
        spread: Half-height of a shaded band around the line, one a step, in the unit of `values`.
        band: Values that are wanted, shaded.
        reference: Value of a dashed horizontal line.
        include: Values that the y axis covers in any case.
        floor: The y axis ends here: lower values are drawn as hollow dots at this edge (their tooltip tells the value).
        marks: Steps to mark by a dotted vertical line (watchdog events).
        steps: Label of the x axis.

    Returns:
        An `<svg>` element; a paragraph that says so when there is no value at all.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Markup('<p class="empty">No values to draw: the run recorded none.</p>')
    frame, ticks = _frame(values, spread, band, reference, include, floor)
    shown = [value if value is None or floor is None else max(value, floor) for value in values]
    parts = [_band(frame, band)] if band else []
    parts += [_axes(frame, ticks, unit, steps)]
    if reference is not None:
        y = frame.y(reference)
        parts.append(_line("reference", LEFT, y, WIDTH - RIGHT, y))
    for step in marks:
        if 0 <= step < frame.steps:
            x = frame.x(step)
            parts.append(_line("event", x, TOP, x, HEIGHT - BOTTOM, f"watchdog event at step {step}"))
    parts += _spreads(frame, shown, spread)
    parts += [_polyline(frame, run) for run in _runs(shown) if len(run) > 1]
    parts += _dots(frame, shown, values, unit)
    return _svg(WIDTH, HEIGHT, _describe(values, known, title), parts)


def interval_bar(point: float, low: float, high: float, *, title: str, reference: float = 0.5) -> Markup:
    """Draw a share in [0, 1] with its interval on a line from 0 to 1, and a dashed line at `reference`."""
    width, height, margin, y = 360, 64, 20, 26

    def x(share: float) -> float:
        return margin + min(max(share, 0.0), 1.0) * (width - 2 * margin)

    parts = [_line("grid", x(0), y, x(1), y)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [_line("grid", x(tick), y - 5, x(tick), y + 5), _text("tick", x(tick), height - 14, f"{tick:.0%}")]
    parts += [
        _line("reference", x(reference), 4, x(reference), height - 28),
        _line("interval", x(low), y, x(high), y),
        Markup('<circle class="point" cx="{:.1f}" cy="{}" r="6"/>').format(x(point), y),
    ]
    return _svg(width, height, title, parts)


def share_bar(share: float, *, title: str, reference: float | None = None) -> Markup:
    """Draw a share in [0, 1] as a bar, with a dashed line at `reference`."""
    width, height = 200, 14
    length = min(max(share, 0.0), 1.0) * width
    parts = [
        Markup('<rect class="track" width="{}" height="{}" rx="3"/>').format(width, height),
        Markup('<rect class="bar" width="{:.1f}" height="{}" rx="3"/>').format(length, height),
    ]
    if reference is not None:
        parts.append(_line("reference", reference * width, 0, reference * width, height))
    return _svg(width, height, title, parts)


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round values, 1, 2 or 5 times a power of ten apart, that enclose [low, high]: `most` + 2 at most."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        # Of a series that is 0 all along nothing is known but where it begins.
        low, high = low - pad if low else low, high + pad
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    # The tolerance keeps 0.6 / 0.2 = 2.9999999999999996 from starting one tick too low.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def label(value: float, step: float) -> str:
    """Write a tick's value with the digits that its distance to the next tick needs."""
    if value != 0 and (abs(value) >= 1e5 or step < 1e-4):
        return f"{value:.3g}".replace("-", "−")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}".replace("-", "−")


def _frame(
    values: Values,
    spread: Values,
    band: Band | None,
    reference: float | None,
    include: Sequence[float],
    floor: float | None,
) -> tuple[_Frame, list[float]]:
    reach = [value for value in values if value is not None]
    for value, half in zip(values, spread, strict=False):
        if value is not None and half is not None:
            reach += [value - half, value + half]
    reach += [*include, *((band.low, band.high) if band else ()), *(() if reference is None else (reference,))]
    low = min(reach) if floor is None else max(min(reach), floor)
    ticks = nice_ticks(low, max(reach))
    step = ticks[1] - ticks[0]
    if len(ticks) > 2 and ticks[1] - low < MOST_BELOW * step:
        # A KL of -0.02 beside one of 5 must not push all else up by a whole tick.
        return _Frame(len(values), low - 0.1 * step, ticks[-1]), ticks[1:]
    return _Frame(len(values), ticks[0], ticks[-1]), ticks


def _axes(frame: _Frame, ticks: list[float], unit: str, steps: str) -> Markup:
    parts = [_text("unit", 4, 12, unit)]
    step = ticks[1] - ticks[0]
    for tick in ticks:
        y = frame.y(tick)
        parts.append(_line("zero" if tick == 0 else "grid", LEFT, y, WIDTH - RIGHT, y))
        parts.append(_text("tick y", LEFT - 6, y + 4, label(tick, step)))
    for at in _step_ticks(frame.steps):
        parts.append(_text("tick", frame.x(at), HEIGHT - BOTTOM + 15, f"{at:,}"))
    parts.append(_text("tick", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, steps))
    return Markup("").join(parts)


def _step_ticks(steps: int) -> list[int]:
    if steps == 1:
        return [0]
    return [round(tick) for tick in nice_ticks(0, steps - 1) if tick <= steps - 1 and tick == round(tick)]


def _band(frame: _Frame, band: Band) -> Markup:
    top, bottom = frame.y(band.high), frame.y(band.low)
    return Markup('<rect class="band" x="{}" y="{:.1f}" width="{}" height="{:.1f}"><title>{}</title></rect>').format(
        LEFT, top, WIDTH - LEFT - RIGHT, bottom - top, band.label
    )


def _spreads(frame: _Frame, values: Values, spread: Values) -> Iterator[Markup]:
    both = [None if half is None else value for value, half in zip(values, spread, strict=False)]
    for run in _runs(both):
        if len(run) > 1:
            upper = [(step, value + (spread[step] or 0.0)) for step, value in run]
            lower = [(step, value - (spread[step] or 0.0)) for step, value in reversed(run)]
            yield Markup('<polygon class="spread" points="{}"/>').format(_points(frame, upper + lower))


def _polyline(frame: _Frame, run: list[tuple[int, float]]) -> Markup:
    return Markup('<polyline class="series" points="{}"/>').format(_points(frame, run))


def _dots(frame: _Frame, shown: Values, values: Values, unit: str) -> Iterator[Markup]:
    """Dots with tooltips; in a long series only where a value stands alone between gaps, which no line would show."""
    alone = {run[0][0] for run in _runs(shown) if len(run) == 1}
    for step, (at, value) in enumerate(zip(shown, values, strict=True)):
        if at is not None and value is not None and (len(values) <= MOST_DOTS or step in alone):
            yield Markup(
                '<g class="{}"><circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="8"/>'
                '<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/><title>step {step}: {value:.4g} {unit}</title></g>'
            ).format(
                "dot" if at == value else "dot out",
                x=frame.x(step),
                y=frame.y(at),
                step=step,
                value=value,
                unit=unit,
            )


def _runs(values: Values) -> list[list[tuple[int, float]]]:
    """Split a series at its gaps into runs of (step, value)."""
    runs: list[list[tuple[int, float]]] = [[]]
    for step, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((step, value))
    return [run for run in runs if run]


def _points(frame: _Frame, points: Sequence[tuple[int, float]]) -> str:
    return " ".join(f"{frame.x(step):.1f},{frame.y(value):.1f}" for step, value in points)


def _describe(values: Values, known: list[float], title: str) -> str:
    gaps = len(values) - len(known)
    return (
        f"{title}, {len(values)} steps: first {known[0]:.4g}, last {known[-1]:.4g}, "
        f"lowest {min(known):.4g}, highest {max(known):.4g}" + (f", {gaps} without a value" if gaps else "")
    )


def _svg(width: int, height: int, description: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, description, Markup("").join(parts)
    )


def _line(name: str, x1: float, y1: float, x2: float, y2: float, title: str = "") -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}">{}</line>').format(
        name, x1, y1, x2, y2, Markup("<title>{}</title>").format(title) if title else ""
    )


def _text(name: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(name, x, y, text)
