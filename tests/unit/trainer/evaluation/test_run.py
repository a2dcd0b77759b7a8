"""The evaluation's loop: it keeps what is done, goes on where it was, and says why it cannot."""

import json
from pathlib import Path

import pytest

from rlhf.artifacts.decisions import read_decisions
from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import InvalidInput, Unavailable
from rlhf.contracts.evaluation import EvaluationJobConfig
from services.trainer.evaluation import run
from services.trainer.evaluation.asking import Services
from services.trainer.evaluation.journal import Journal
from services.trainer.evaluation.plan import total_units
from services.trainer.evaluation.run import flatten, run_evaluation
from services.trainer.jobs.handle import ServicesFailed
from tests.unit.trainer.evaluation.test_sections import SERVICES, generate, logprobs, score


class Job:
    """What the loop sees of the trainer."""

    id = "eval-1"

    def __init__(self, folder: Path, config: EvaluationJobConfig) -> None:
        self.folder, self.config = folder, config
        self.steps: list[tuple[int, int, dict[str, float]]] = []
        self.events: list[str] = []
        self.told: list[tuple[str, str, str]] = []
        self.store = ArtifactStore(folder / "store")

    def progress(self, step: int, total: int, metrics: dict[str, float]) -> None:
        self.steps.append((step, total, metrics))

    def event(self, name: str, message: str, *, of: str | None = None, **_: object) -> None:
        self.events.append(name)
        self.told.append((of or self.id, name, message))

    def raise_if_stopped(self) -> None: ...

    def raise_if_lost(self) -> None: ...


def config(prompts: int = 40, **more: object) -> EvaluationJobConfig:
    rows = [{"prompt": f"Question {i}", "type": "t", "label": "safe"} for i in range(prompts)]
    return EvaluationJobConfig.model_validate(
        {"kind": "evaluation", "adapter": "ppo@1", "xstest": {"prompts": rows}, **more}
    )


def test_a_report_and_metrics_come_out(tmp_path: Path) -> None:
    job = Job(tmp_path, config())
    run_evaluation(job, SERVICES)
    # 40 prompts, 16 a unit.
    assert [step[:2] for step in job.steps] == [(1, 3), (2, 3), (3, 3)]
    assert job.steps[-1][2]["xstest/adapter/over_refusal/rate"] == 0.0
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["adapter"], report["baseline"], report["xstest"]["adapter"]["over_refusal"]["prompts"]) == (
        "ppo@1",
        None,
        40,
    )
    assert total_units(job.config) == 3


def test_an_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    asked: list[str] = []

    def counted(request):
        asked.append(request.prompts[0])
        return generate(request)

    whole = Job(tmp_path / "whole", config())
    whole.folder.mkdir()
    run_evaluation(whole, SERVICES)
    lines = (whole.folder / "evaluation" / "xstest.jsonl").read_text().splitlines(keepends=True)
    job = Job(tmp_path / "killed", config())
    (job.folder / "evaluation").mkdir(parents=True)
    # One unit is done; a crash cut the second one's line short.
    (job.folder / "evaluation" / "xstest.jsonl").write_text(lines[0] + lines[1][:30])
    run_evaluation(job, Services(counted, logprobs, score))
    assert asked == ["Question 16", "Question 16", "Question 32", "Question 32"], "of each side once"
    assert job.events == ["resumed"]
    assert (job.folder / "evaluation" / "xstest.jsonl").read_text() == "".join(lines)
    drop = {"job", "created_at"}
    first, second = (json.loads((each.folder / "evaluation.json").read_text()) for each in (whole, job))
    assert {k: v for k, v in first.items() if k not in drop} == {k: v for k, v in second.items() if k not in drop}


def test_a_finished_unit_is_on_disk(tmp_path: Path) -> None:
    Journal(tmp_path, "x").add([{"a": 1}])
    assert Journal(tmp_path, "x").rows == [{"a": 1}]


def test_gates_that_hold_and_fail_are_in_the_report(tmp_path: Path) -> None:
    gates = {"xstest/change/over_refusal": "<= +0.05", "xstest/adapter/over_refusal/rate": "> 0"}
    job = Job(tmp_path, config(gates=gates))
    run_evaluation(job, SERVICES)
    told = json.loads((tmp_path / "evaluation.json").read_text())["gates"]
    assert not told["passed"]
    assert [(each["figure"], each["value"], each["held"]) for each in told["results"]] == [
        ("xstest/change/over_refusal", 0.0, True),
        ("xstest/adapter/over_refusal/rate", 0.0, False),
    ]
    assert job.events == ["gates_failed"]
    assert read_decisions(job.store, "ppo") == [], "only a job that promotes decides"
    assert job.steps[-1][:2] == (3, 3), "the evaluation did its work"


def test_a_gate_on_a_bound_needs_evidence_where_the_rate_itself_holds(tmp_path: Path) -> None:
    gates = {"xstest/adapter/over_refusal/rate": "<= 0.05", "xstest/adapter/over_refusal/ci95/high": "<= 0.05"}
    job = Job(tmp_path, config(gates=gates))
    run_evaluation(job, SERVICES)
    told = json.loads((tmp_path / "evaluation.json").read_text())["gates"]
    # Wilson's interval of 0 refusals in 40: its upper end is z² / (n + z²) = 3.8415 / 43.8415.
    assert [each["held"] for each in told["results"]] == [True, False]
    assert told["results"][1]["value"] == pytest.approx(0.0876, abs=1e-4)
    assert job.steps[-1][2]["xstest/adapter/over_refusal/ci95/low"] == 0.0


@pytest.mark.parametrize(("gate", "state"), [("<= 0", "accepted"), ("< 0", "rejected")])
def test_a_promotion_is_decided_and_told_to_both_jobs(tmp_path: Path, gate: str, state: str) -> None:
    job = Job(tmp_path, config(gates={"xstest/change/over_refusal": gate}, promote=True))
    run_evaluation(job, SERVICES)
    run_evaluation(job, SERVICES)  # as after a kill between the decision and the job's end
    (decision,) = read_decisions(job.store, "ppo")
    assert (decision.version, decision.state, decision.evaluation) == (1, state, "eval-1")
    assert decision.reasons == ([] if state == "accepted" else ["xstest/change/over_refusal is 0 (gate < 0)"])
    assert {(of, name) for of, name, _ in job.told if name != "resumed"} == {("eval-1", state), ("ppo", state)}


def test_a_figure_that_could_not_be_measured_rejects(tmp_path: Path) -> None:
    rows = [{"prompt": "bad", "type": "t", "label": "safe"}]
    rows += [{"prompt": "good", "type": "t", "label": "unsafe"}]
    job = Job(tmp_path, config(xstest={"prompts": rows}, gates={"xstest/change/over_refusal": "<= 1"}, promote=True))
    run_evaluation(job, SERVICES)
    (decision,) = read_decisions(job.store, "ppo")
    assert decision.state == "rejected"
    assert "xstest/change/over_refusal has no value (gate <= 1)" in decision.reasons[0]


def test_an_evaluation_with_an_empty_section_accepts_nothing(tmp_path: Path) -> None:
    responses = {"prompts": [{"prompt": "bad"}]}
    job = Job(tmp_path, config(responses=responses, gates={"xstest/change/over_refusal": "<= 1"}, promote=True))
    with pytest.raises(InvalidInput, match="responses: not one sample"):
        run_evaluation(job, SERVICES)
    (decision,) = read_decisions(job.store, "ppo")
    assert (decision.state, len(decision.reasons)) == ("rejected", 1)
    assert "responses: not one sample could be scored" in decision.reasons[0]


def test_an_outage_is_waited_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PATIENCE", run.Retries(attempts=3, first_delay_s=0.001, longest_delay_s=0.001))
    outages = [Unavailable("policy restarts")] * 2

    def ill(request):
        if outages:
            raise outages.pop()
        return generate(request)

    job = Job(tmp_path, config(prompts=1))
    run_evaluation(job, Services(ill, logprobs, score))
    assert job.events == ["request_retried"] * 2
    outages = [Unavailable("policy is gone")] * 3
    (tmp_path / "evaluation" / "xstest.jsonl").unlink()
    with pytest.raises(ServicesFailed, match="policy is gone"):
        run_evaluation(Job(tmp_path, config(prompts=1)), Services(ill, logprobs, score))


def test_an_evaluation_that_measured_nothing_fails_with_the_reason(tmp_path: Path) -> None:
    rows = [{"prompt": "bad", "type": "t", "label": "safe"}]
    job = Job(tmp_path, config(xstest={"prompts": rows}))
    with pytest.raises(InvalidInput, match="xstest: not one sample could be scored; the first: the logits"):
        run_evaluation(job, SERVICES)


def test_a_missing_plug_in_ends_it_before_anything_is_asked(tmp_path: Path) -> None:
    metrics = [{"kind": "plugin", "name": "m", "entry_point": "absent"}]
    responses = {"prompts": [{"prompt": "p"}], "metrics": metrics}
    with pytest.raises(InvalidInput, match="no entry point 'absent'"):
        run_evaluation(Job(tmp_path, config(responses=responses)), SERVICES)


def test_metrics_are_the_numbers_of_the_figures() -> None:
    told = {"a": {"b": 1, "c": None, "d": {"e": 0.5}, "f": "text", "g": [1, 2], "h": True}}
    assert flatten(told) == {"a/b": 1.0, "a/d/e": 0.5}
