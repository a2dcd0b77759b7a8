import io
from typing import Any

from rich.console import Console

from rlhf.contracts.jobs import JobEvent, JobState, JobStatus
from rlhf.local.jobview import JobView, describe_seconds

METRICS = {
    "reward_mean": 0.25,
    "uncertainty_mean": 0.125,
    "kl_sequence": 0.3,
    "rep4": 0.02,
    "eos_rate": 0.5,
    "response_length": 31.5,
    "tokens_per_s": 61.2,
    "step_s": 20.0,
}


def progress(step: int, metrics: dict[str, Any]) -> JobEvent:
    data = {"step": step, "total": 18, "metrics": metrics}
    return JobEvent(id=str(step), time=0, kind="progress", name="progress", message="", data=data)


def status(step: int, eta: float | None, kind: str = "ppo") -> JobStatus:
    return JobStatus(
        id="ppo-1",
        kind=kind,
        state=JobState.RUNNING,
        step=step,
        total_steps=18,
        progress=step / 18,
        eta_s=eta,
        created_at=0,
        started_at=0,
        finished_at=None,
        last_metrics={},
        reason=None,
        attempts=1,
    )


def show(*, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    with JobView(console, "PPO: 18 steps") as view:
        view.tell(progress(1, METRICS))
        view.update(status(1, 185.0))
        view.tell(progress(2, METRICS | {"kl_sequence": None}))
        watchdog = JobEvent(id="w", time=0, kind="watchdog", level="warning", name="kl", message="KL is high")
        view.tell(watchdog)
        view.tell(JobEvent(id="s", time=0, kind="log", name="sample", message="SAMPLE-TEXT"))
        view.update(status(2, 165.0))
    return out.getvalue()


def test_without_a_terminal_there_is_a_line_a_step() -> None:
    lines = show(terminal=False).splitlines()
    assert lines == [
        "PPO: 18 steps",
        "  step 1 of 18: reward +0.250, ± members 0.125, KL 0.300, rep-4 0.020, ended 50%, length 31.5, tokens/s 61, "
        "seconds 20.0",
        "  step 2 of 18: reward +0.250, ± members 0.125, KL –, rep-4 0.020, ended 50%, length 31.5, tokens/s 61, "
        "seconds 20.0, 3 min 05 s left",
        "  watchdog: KL is high",
    ]


def test_on_a_terminal_the_table_is_live_and_warnings_stay_above_it() -> None:
    text = show(terminal=True)
    assert "2 of 18, 2 min 45 s left" in text
    assert "watchdog: KL is high" in text
    assert "tokens/s" in text
    assert "SAMPLE-TEXT" not in text


def small_step(number: int, at: float, **metrics: float) -> JobEvent:
    data = {"step": number, "total": 100, "metrics": metrics}
    return JobEvent(id=str(number), time=at, kind="progress", name="progress", message="", data=data)


SMALL_STEPS = [
    small_step(1, 0.0, tokens=4000),
    small_step(2, 9.0, tokens=4001),
    small_step(3, 10.0, tokens=4002),
    small_step(4, 11.0, loss=0.6931),
    small_step(5, 12.0, loss=0.6, validation_accuracy=0.75),
]


def test_many_small_steps_give_a_line_in_ten_seconds_or_when_they_report_something_new() -> None:
    out = io.StringIO()
    with JobView(Console(file=out, width=120), "reward model") as view:
        for event in SMALL_STEPS:
            view.tell(event)
    assert out.getvalue().splitlines() == [
        "reward model",
        "  step 1 of 100: tokens 4000",
        "  step 3 of 100: tokens 4002",
        "  step 4 of 100: loss 0.6931",
        "  step 5 of 100: loss 0.6, validation_accuracy 0.75",
    ]


def test_on_a_terminal_small_steps_are_one_line_with_the_latest_of_everything() -> None:
    out = io.StringIO()
    with JobView(Console(file=out, force_terminal=True, width=120, color_system=None), "reward model") as view:
        for event in SMALL_STEPS:
            view.tell(event)
        view.update(status(5, None, "reward_model"))
    assert "tokens 4002, loss 0.6, validation_accuracy 0.75" in out.getvalue()


def test_times_are_for_people() -> None:
    assert describe_seconds(44.6) == "45 s"
    assert describe_seconds(65) == "1 min 05 s"
