"""A job's report, downloaded from the console, from the real job API."""

from pathlib import Path

from fastapi.testclient import TestClient

from rlhf.contracts.jobs import JobState
from rlhf.evaluation.job_report.page import render_job_report
from rlhf.evaluation.job_report.records import read_records
from rlhf.evaluation.job_report.shelves import FolderShelf
from services.trainer.jobs.keeping import keep_record
from services.trainer.jobs.store import JobStore
from tests.contract.console.test_jobs import EVIL, job, tell_story
from tests.html_page import Page, asks_for_nothing

__all__ = ["job"]


def test_a_report_is_a_file_of_its_own(browser: TestClient, trainer: TestClient, jobs: JobStore, job: str) -> None:
    tell_story(trainer, jobs, job)
    assert f'href="/jobs/{job}/report" download' in browser.get(f"/jobs/{job}").text
    answer = browser.get(f"/jobs/{job}/report")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job}.html"'
    page = Page(answer.text)
    assert asks_for_nothing(page, answer.text)
    assert "kl_zero: 0. No update." in page.text
    assert EVIL in page.text, "as text"
    assert "The job has not ended: it is queued." in page.text


def test_the_folder_of_an_ended_job_gives_the_same_report_as_the_stack(
    browser: TestClient, trainer: TestClient, jobs: JobStore, job: str
) -> None:
    tell_story(trainer, jobs, job)
    assert jobs.request_cancel(job).state is JobState.CANCELLED
    folder: Path = trainer.app.state.desk.store.job_folder(job)
    keep_record(jobs, folder, job)
    told = browser.get(f"/jobs/{job}/report").text
    assert "kl_zero" in told
    assert render_job_report(read_records(FolderShelf(folder), job)) == told


def test_a_record_that_cannot_be_kept_ends_nothing(jobs: JobStore, job: str, tmp_path: Path) -> None:
    keep_record(jobs, tmp_path / "absent", job)
    keep_record(jobs, tmp_path, "ppo-00000000")
    assert not (tmp_path / "record.json").exists()


def test_an_unknown_job_and_a_visitor_without_login_get_none(browser: TestClient, app, job: str) -> None:
    answer = browser.get("/jobs/ppo-00000000/report")
    assert (answer.status_code, "content-disposition" in answer.headers) == (404, False)
    with TestClient(app, follow_redirects=False) as stranger:
        assert stranger.get(f"/jobs/{job}/report").status_code == 303


def test_a_spoilt_file_of_a_job_is_named(browser: TestClient, trainer: TestClient, job: str) -> None:
    (trainer.app.state.desk.store.job_folder(job) / "metrics.jsonl").write_text("{]\n")
    answer = browser.get(f"/jobs/{job}/report")
    assert answer.status_code == 409
    assert f"metrics.jsonl of {job} is not JSON" in answer.text
