"""A job's progress on the terminal: a live table, or one plain line a step where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, ConsoleRenderable, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlhf.contracts.jobs import JobEvent, JobState, JobStatus

SHOWN_STEPS = 12
WAITING = {JobState.QUEUED: " (waiting for a worker)", JobState.PAUSED: " (paused)"}
QUIET_S = 10.0
"""Seconds between plain lines of a job whose steps are many and small, unless it reports something new."""

Column = tuple[str, str, str]
"""Heading, name in the job's metrics, format."""

PPO_COLUMNS: tuple[Column, ...] = (
    ("reward", "reward_mean", "{:+.3f}"),
    ("± members", "uncertainty_mean", "{:.3f}"),
    ("KL", "kl_sequence", "{:.3f}"),
    ("rep-4", "rep4", "{:.3f}"),
    ("ended", "eos_rate", "{:.0%}"),
    ("length", "response_length", "{:.1f}"),
    ("tokens/s", "tokens_per_s", "{:.0f}"),
    ("seconds", "step_s", "{:.1f}"),
)


class JobView:
    """Context manager and watcher of one job: live on a terminal, else lines."""

    def __init__(self, console: Console, title: str) -> None:
        """Args: console; title, what the job is for people."""
        self._console, self._title = console, title
        self._rows: list[JobEvent] = []
        self._latest: dict[str, float | None] = {}
        self._printed: JobEvent | None = None
        self._status: JobStatus | None = None
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        """Starts the live view, or prints the title."""
        if self._live is not None:
            self._live.start()
        else:
            self._console.print(self._title, highlight=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Leaves the last picture on the terminal."""
        if self._live is not None:
            self._live.stop()

    def tell(self, event: JobEvent) -> None:
        """Shows a step, a watchdog's finding, a warning; other events stay in the logs."""
        if event.kind == "progress":
            self._rows.append(event)
            self._latest.update(metrics_of(event))
            if self._live is None and self._is_news(event):
                self._printed = event
                self._print(f"  {describe_step(event)}{self._time_left()}")
        elif event.level != "info" or event.name == "resumed":
            self._print(f"  {'watchdog' if event.kind == 'watchdog' else event.level}: {event.message}", style="yellow")

    def update(self, status: JobStatus) -> None:
        """Refreshes the picture."""
        self._status = status
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)

    def _is_news(self, event: JobEvent) -> bool:
        last, metrics = self._printed, metrics_of(event)
        if last is None or is_ppo(metrics) or metrics.keys() != metrics_of(last).keys():
            return True
        return event.time - last.time >= QUIET_S

    def _print(self, line: str, style: str | None = None) -> None:
        self._console.print(Text(line, style=style or ""), soft_wrap=True)

    def _time_left(self) -> str:
        eta = self._status.eta_s if self._status is not None else None
        return "" if not eta else f", {describe_seconds(eta)} left"

    def _picture(self) -> RenderableType:
        status = self._status
        if status is None:
            return Text(self._title)
        waiting = WAITING.get(status.state, "")
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, status.total_steps), completed=status.step, width=30)
        steps = f"{status.step} of {status.total_steps}{self._time_left()}{waiting}"
        head.add_row(bar, Text(steps))
        parts: list[ConsoleRenderable] = [Text(self._title, style="bold"), head]
        if is_ppo(self._latest):
            parts.append(step_table(self._rows[-SHOWN_STEPS:]))
        elif self._latest:
            parts.append(Text(describe_metrics(self._latest)))
        return Group(*parts)


def is_ppo(metrics: Mapping[str, float | None]) -> bool:
    """Whether a job's metrics are those of PPO, whose every step is worth a row."""
    return "kl_sequence" in metrics


def step_table(rows: Sequence[JobEvent]) -> Table:
    """PPO's steps, one a row."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("step", *(heading for heading, _, _ in PPO_COLUMNS)):
        table.add_column(heading, justify="right")
    for event in rows:
        metrics = metrics_of(event)
        table.add_row(str(event.data.get("step", "")), *(cell(metrics, name, form) for _, name, form in PPO_COLUMNS))
    return table


def describe_step(event: JobEvent) -> str:
    """A progress event as one line."""
    return f"step {event.data.get('step')} of {event.data.get('total')}: {describe_metrics(metrics_of(event))}"


def describe_metrics(metrics: Mapping[str, float | None]) -> str:
    """Metrics as text: PPO's under short headings, others under their own names."""
    columns = PPO_COLUMNS if is_ppo(metrics) else tuple((name, name, "{:.4g}") for name in list(metrics)[:8])
    known = [(heading, cell(metrics, name, form)) for heading, name, form in columns if name in metrics]
    return ", ".join(f"{heading} {value}" for heading, value in known)


def metrics_of(event: JobEvent) -> Mapping[str, float | None]:
    """The metrics of a progress event; empty when it has none."""
    found = event.data.get("metrics")
    return found if isinstance(found, Mapping) else {}


def cell(metrics: Mapping[str, float | None], name: str, form: str) -> str:
    """One value as text; a dash when it is missing or not finite."""
    value = metrics.get(name)
    return "–" if value is None else form.format(value)


def describe_seconds(seconds: float) -> str:
    """A time for people: `45 s`, `3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
