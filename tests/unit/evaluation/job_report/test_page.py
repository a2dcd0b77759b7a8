"""The report of a job: what stands on it for each kind and state, and that nothing from outside becomes markup."""

import json
from collections.abc import Callable

import pytest

from rlhf.evaluation.job_report.records import RecordsUnreadable, read_records
from rlhf.evaluation.job_report.shelves import FolderShelf
from services.trainer.evaluation.run import run_evaluation
from tests.html_page import asks_for_nothing
from tests.unit.evaluation.job_report.conftest import Job, report_of
from tests.unit.trainer.evaluation.test_sections import SERVICES

PPO = {"kind": "ppo", "prompts": ["Name a fruit.", "Why is it so?"], "reward_model": "rm-1@1", "steps": 4}
HINT = "The policy repeats itself."


@pytest.fixture
def ppo(new_job: Callable[..., Job]) -> Job:
    """A PPO job of four steps, with a sample each and a watchdog's alert in the second and fourth."""
    job = new_job("ppo-1", PPO)
    for step in (1, 2, 3, 4):
        data = {"step": step, "prompt": f"Question {step}", "response": "Yes.", "reward": 0.5, "uncertainty": 0.25}
        job.event("sample", "the step's best response", data=data)
        if step % 2 == 0:
            data = {"step": step, "value": 0.5, "threshold": 0.1, "hint": HINT}
            job.event("repetition_rising", f"0.5 is too much. {HINT}", kind="watchdog", level="warning", data=data)
        row = {"reward_mean": 0.25 * step, "uncertainty_mean": 0.1, "kl_sequence": 0.1, "kl_target": 0.4, "rep4": 0.01}
        job.progress(step, 4, {**row, "entropy": None, "clip_fraction": 0.2, "response_length": 20.0})
    job.event("published", "policy servers can load ppo-1@4", kind="published", data={"adapter": "ppo-1@4"})
    job.end("succeeded", step=4, total=4)
    return job


def test_a_ppo_job_shows_curves_samples_and_cards(ppo: Job) -> None:
    page, html = report_of(ppo)
    for title in ("Reward", "KL to the base model", "Repetition", "Response length", "Clip fraction"):
        assert f"<b>{title}</b>" in html
    assert "<b>Entropy</b>" not in html, "a metric without any value has no curve"
    assert html.count('class="spread"') == 1, "the reward's uncertainty"
    assert html.count('class="reference"') == 1, "the KL's target"
    assert "4 of 4 steps done in 1 min 30 s." in page.text, "100 - 10 s"
    assert "0.25 → 1.00 first → last step" in page.text
    for step in (1, 2, 3, 4):
        assert f"Question {step}" in page.text
    # Prompts of 3 and 4 words.
    assert page.row("words, least / median / most") == ["3 / 4 / 4"]
    assert page.row("trained") == ["adapters of rank 16 on all layers"]
    assert page.row("newest version") == ["ppo-1@4"]
    assert page.row("update.learning_rate") == ["0.0001"]
    assert page.row("prompts", "2") == [], "data is counted"


def test_warnings_stand_on_top_once_a_name(ppo: Job) -> None:
    page, html = report_of(ppo)
    assert page.row("2–4 (2 ×)") == [f"repetition_rising 0.5 is too much. {HINT}", "0.500", "0.100"]
    assert html.index("repetition_rising") < html.index('id="curves"') < html.index('id="samples"')
    assert html.count('class="event"') % 2 == 0, "both steps are marked in every curve"


def test_a_ppo_job_shows_the_evaluations_of_its_adapters_and_no_others(ppo: Job, new_job: Callable[..., Job]) -> None:
    for name, adapter in (("eval-1", "ppo-1@4"), ("eval-2", "ppo-10@4")):
        prompts = [{"prompt": f"Asked by {name}"}]
        job = new_job(name, {"kind": "evaluation", "adapter": adapter, "responses": {"prompts": prompts}})
        run_evaluation(job, SERVICES)
    page, _ = report_of(ppo)
    assert "ppo-1@4 beside the base model; measured by eval-1." in page.text
    assert "Asked by eval-1" in page.text
    assert "eval-2" not in page.text


def test_a_job_that_failed_before_any_step_says_why_and_shows_what_there_is(new_job: Callable[..., Job]) -> None:
    job = new_job("ppo-1", PPO)
    job.event("failed", "rm-1@1 does not exist", kind="state", level="error")
    job.end("failed", "rm-1@1 does not exist", total=4)
    page, _ = report_of(job)
    assert "Reason: rm-1@1 does not exist" in page.text
    assert "No step is recorded." in page.text
    assert "None were told." in page.text
    assert "Its metrics.json is not there" in page.text, "of the reward model"
    assert page.row("prompts", "2") == []


@pytest.mark.parametrize("kind", ["reward_model", "evaluation"])
def test_a_job_without_results_says_so(new_job: Callable[..., Job], kind: str) -> None:
    pair = {"prompt": "p", "chosen": "c", "rejected": "r"}
    bodies = {
        "reward_model": {"kind": kind, "pairs": [pair, pair]},
        "evaluation": {"kind": kind, "adapter": "ppo-1@4", "responses": {"prompts": [{"prompt": "p"}]}},
    }
    job = new_job("job-1", bodies[kind])
    job.end("cancelled", "cancelled by request")
    page, html = report_of(job)
    assert "cancelled by request" in page.text
    told = {"reward_model": "Its metrics.json is not there", "evaluation": "There is no evaluation.json"}
    assert told[kind] in page.text
    assert asks_for_nothing(page, html)


def test_a_folder_of_a_job_that_has_not_ended_says_what_is_unknown(ppo: Job) -> None:
    (ppo.folder / "record.json").unlink()
    page, _ = report_of(ppo)
    assert "state not recorded" in page.text
    assert "The folder has no record.json" in page.text
    assert "Its files tell of 4 steps." in page.text
    assert "Not recorded: whether a watchdog fired is unknown." in page.text
    assert "no watchdog fired, and nothing warned" not in page.text


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</pre><b>&amp;"])
def test_text_from_outside_stays_text(new_job: Callable[..., Job], hostile: str) -> None:
    job = new_job("ppo-1", {**PPO, "prompts": [hostile]})
    data = {
        "step": hostile,
        "prompt": hostile,
        "response": hostile,
        "value": hostile,
        "hint": hostile,
        hostile: hostile,
    }
    job.event("sample", hostile, data=data)
    job.event(hostile, hostile, kind="watchdog", level="error", data=data)
    job.progress(1, 4, {"reward_mean": 0.5})
    job.end("failed", hostile)
    card = job.store.root / "reward_models" / "rm-1" / "1" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text(hostile)
    other = new_job(
        "eval-1", {"kind": "evaluation", "adapter": "ppo-1@1", "responses": {"prompts": [{"prompt": hostile}]}}
    )
    run_evaluation(other, SERVICES)
    page, html = report_of(job)
    assert asks_for_nothing(page, html)
    assert hostile not in html
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    assert page.text.count(" ".join(hostile.split())) >= 8


def test_every_link_and_label_has_its_target(ppo: Job) -> None:
    page, _ = report_of(ppo)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for target in (attributes.get("href", "")[1:], attributes.get("aria-labelledby", "")):
            assert not target or target in ids


def test_a_file_that_is_too_large_is_left_out_and_named(ppo: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (ppo.folder / "config.json").stat().st_size
    monkeypatch.setattr("rlhf.evaluation.job_report.shelves.MOST_BYTES", size - 1)
    page, _ = report_of(ppo)
    assert "config.json of ppo-1 is too large for a report and was left out." in page.text


def test_a_row_that_is_being_written_is_left_out(ppo: Job) -> None:
    with (ppo.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "rew')
    assert [row["step"] for row in read_records(FolderShelf(ppo.folder), "ppo-1").rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("config.json", "{", "config.json of ppo-1 is not JSON"),
        ("config.json", "[]", "config.json of ppo-1 holds a list, not an object"),
        ("metrics.jsonl", "{]\n", "metrics.jsonl of ppo-1 is not JSON"),
        ("record.json", json.dumps({"status": 1, "events": []}), "record.json of ppo-1 is not a job's record: status"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(ppo: Job, file: str, content: str, told: str) -> None:
    (ppo.folder / file).write_text(content)
    with pytest.raises(RecordsUnreadable, match=told):
        report_of(ppo)
