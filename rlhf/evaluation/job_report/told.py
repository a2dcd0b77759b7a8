"""What a job told while it ran: what someone should look at, sample responses, and the rest. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rlhf.contracts.jobs import JobEvent
from rlhf.evaluation.formats import mark_repeats, show_moment, show_prompt
from rlhf.evaluation.readings import number
from rlhf.evaluation.tables import span, tell_event

MOST_SAMPLES = 12
MOST_EVENTS = 100
OWN = "step", "value", "threshold", "hint"


def needs_a_look(event: JobEvent) -> bool:
    """Whether it is a watchdog's, a warning or an error."""
    return event.kind == "watchdog" or event.level != "info"


def group_events(events: Iterable[JobEvent]) -> list[list[JobEvent]]:
    """Events of one kind and name together, oldest first; groups with an error first, then by their first event."""
    groups: dict[tuple[str, str], list[JobEvent]] = {}
    for event in events:
        groups.setdefault((event.kind, event.name), []).append(event)
    return sorted(groups.values(), key=lambda group: all(event.level != "error" for event in group))


def find_steps(group: Iterable[JobEvent]) -> list[int]:
    """The steps that events tell."""
    return [int(step) for event in group if (step := number(event.data.get("step"))) is not None]


def collect_warnings(events: Sequence[JobEvent]) -> list[dict[str, Any]]:
    """Watchdogs' findings, warnings and errors: one row a name, by its last event; errors first, then by step."""
    return [_describe(group) for group in group_events(filter(needs_a_look, events))]


def _describe(group: Sequence[JobEvent]) -> dict[str, Any]:
    last, steps = group[-1], find_steps(group)
    # Lists, such as the outcome of each gate, are for programs; their message has them in words.
    more = {key: value for key, value in last.data.items() if key not in OWN and not isinstance(value, list | dict)}
    told: dict[str, Any] = {"name": last.name, "message": last.message, **more}
    told |= {key: last.data.get(key) for key in OWN}
    if str(told["hint"]) in last.message:
        # A watchdog's message ends with it.
        told["hint"] = None
    times = f"{len(group)} ×" if len(group) > 1 else None
    return tell_event(told) | {"step": span(steps) if steps else times}


def choose_samples(events: Sequence[JobEvent]) -> tuple[list[dict[str, Any]], int]:
    """Responses over the whole run, evenly by step with the first and the last; and how many there are."""
    found = [event for event in events if event.name == "sample" and event.kind == "log"]
    count = min(MOST_SAMPLES, len(found))
    chosen = [found[round(index * (len(found) - 1) / max(1, count - 1))] for index in range(count)]
    return [_sample(event) for event in chosen], len(found)


def _sample(event: JobEvent) -> dict[str, Any]:
    response = event.data.get("response")
    return {
        "step": event.data.get("step"),
        "prompt": show_prompt(event.data.get("prompt")),
        "text": mark_repeats(response) if isinstance(response, str) else None,
        "reward": number(event.data.get("reward")),
        "uncertainty": number(event.data.get("uncertainty")),
    }


def choose_events(events: Sequence[JobEvent]) -> tuple[list[dict[str, Any]], int]:
    """The last events that are no samples and no progress, in order; and how many were left out."""
    found = [event for event in events if event.kind != "progress" and event.name != "sample"]
    shown = [
        {"time": show_moment(event.time), "level": event.level, "name": event.name, "message": event.message}
        for event in found[-MOST_EVENTS:]
    ]
    return shown, len(found) - len(shown)
