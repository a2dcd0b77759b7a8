"""Jobs in the console, before the real job API."""

import re

import httpx
import pytest
from fastapi.testclient import TestClient
from redis import Redis

from rlhf.contracts.jobs import BestVersion, JobState
from services.console.app import create_app
from services.console.settings import ConsoleSettings
from services.trainer.jobs.series import SeriesWriter
from services.trainer.jobs.store import JobStore
from tests.contract.console.conftest import csrf_of, log_in

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SERVICES_KEY = {"Authorization": "Bearer the key of services"}
PPO = {"kind": "ppo", "prompts": ["Name a fruit."], "reward_model": "rm@1", "steps": 3}


@pytest.fixture
def job(trainer: TestClient) -> str:
    return trainer.post("/jobs", json=PPO, headers=SERVICES_KEY).json()["id"]


def tell_story(trainer: TestClient, jobs: JobStore, job: str) -> None:
    """Two steps of a learner, with a sample, a watchdog's alert and a best version."""
    series = SeriesWriter(trainer.app.state.desk.store.job_folder(job))
    for step in (1, 2):
        row = {"reward_mean": 0.25 * step, "uncertainty_mean": 0.1, "kl_sequence": 0.3, "kl_target": 0.4, "rep4": 0.01}
        series.write({**row, "response_length": 20.0, "entropy": None, "step": step})
    sample = {"step": 2, "prompt": "Why?", "response": f"{EVIL} so it is so it is", "reward": 1.0, "uncertainty": 0.5}
    jobs.add_event(job, "log", "info", "sample", "the step's best response", sample)
    data = {"step": 2, "value": 0.0, "threshold": 1.0, "hint": "h"}
    jobs.add_event(job, "watchdog", "warning", "kl_zero", "kl_zero: 0. No update.", data)
    jobs.progress(job, 2, 3, row, None, BestVersion(step=2, adapter=f"{job}@2", reward=0.5, kl=0.3))


def test_the_list_has_every_job(browser: TestClient, job: str) -> None:
    for path in ("/", "/parts/jobs"):
        page = browser.get(path).text
        assert f'href="/jobs/{job}"' in page
        assert "queued" in page
        assert "0 / 3" in page


def test_a_jobs_page_shows_what_it_learns(browser: TestClient, trainer: TestClient, jobs: JobStore, job: str) -> None:
    tell_story(trainer, jobs, job)
    page = browser.get(f"/jobs/{job}").text
    for title in ("Reward", "KL to the base model", "Uncertainty", "Repetition", "Response length"):
        assert f"<b>{title}</b>" in page
    assert "<b>Entropy</b>" not in page, "a metric without any value has no curve"
    assert "0.25 → 0.5" in page
    assert 'class="reference"' in page, "the KL's target"
    assert "watchdog event at step" in page
    assert "kl_zero: 0. No update." in page
    assert f"{job}@2" in page
    assert "Step 2" in page
    # "so it is" comes twice in a row: its three words, twice.
    assert "<mark>so it is so it is</mark>" in page
    part = browser.get(f"/parts/jobs/{job}").text
    assert "<html" not in part
    assert "<b>Reward</b>" in part


def test_a_watchdog_that_warns_at_every_step_is_told_once(
    browser: TestClient, trainer: TestClient, jobs: JobStore, job: str
) -> None:
    tell_story(trainer, jobs, job)
    for step in (1, 2):
        data = {"step": step, "value": 0.0, "threshold": 1.0, "hint": "h"}
        jobs.add_event(job, "watchdog", "warning", "rep", f"seen at {step}", data)
    page = browser.get(f"/jobs/{job}").text
    told = re.sub(r"\s+", " ", re.sub("<.*?>", "", page.split('id="alerts"')[1].split("</ul>")[0]))
    assert "rep step 1–2 (2 ×): seen at 2" in told
    assert "seen at 1" not in told
    assert "kl_zero step 2: kl_zero: 0. No update." in told
    # Of steps 1 and 2, a line where rep began, at the first of the curve's places, and where kl_zero did.
    reward = page.split("<b>Reward</b>")[1].split("</svg>")[0]
    assert re.findall(r"watchdog event at step (\d)", reward) == ["0", "1"]


def test_events_that_came_since_are_read_once(browser: TestClient, jobs: JobStore, job: str) -> None:
    browser.get(f"/jobs/{job}")
    jobs.add_event(job, "log", "info", "later", "it came later", {})
    for _ in range(2):
        assert browser.get(f"/parts/jobs/{job}").text.count("it came later") == 1


def test_text_of_models_and_jobs_stays_text(
    browser: TestClient, trainer: TestClient, jobs: JobStore, job: str, redis_client: Redis
) -> None:
    tell_story(trainer, jobs, job)
    redis_client.hset(f"job:{job}", mapping={"state": JobState.FAILED.value, "reason": EVIL})
    for path in ("/", f"/jobs/{job}", f"/parts/jobs/{job}"):
        page = browser.get(path).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<script>alert" not in page
        assert "<img" not in page


def test_the_buttons_do_what_they_say(browser: TestClient, jobs: JobStore, job: str) -> None:
    csrf = csrf_of(browser.get(f"/jobs/{job}"))
    for action, state in (("pause", JobState.PAUSED), ("resume", JobState.QUEUED), ("cancel", JobState.CANCELLED)):
        answer = browser.post(f"/jobs/{job}/{action}", data={"csrf": csrf})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job}")
        assert jobs.status(job).state is state
    assert "/cancel" not in browser.get(f"/jobs/{job}").text
    late = browser.post(f"/jobs/{job}/pause", data={"csrf": csrf})
    assert late.status_code == 409
    assert "Not possible now" in late.text


def test_an_unknown_job_is_a_page_that_says_so(browser: TestClient) -> None:
    for path in ("/jobs/ppo-00000000", "/jobs/%2e%2e", "/jobs/A B", "/nothing"):
        answer = browser.get(path)
        assert answer.status_code == 404, path
        assert "<h1>Not found</h1>" in answer.text


def form_of(page: httpx.Response) -> dict[str, str]:
    """What a browser would send of the larger form, untouched."""
    text = page.text.split('<form method="post" action="/submit"')[1]
    fields = {}
    for tag in re.findall(r"<input[^>]*>", text):
        name, value = (re.search(rf'\b{part}="([^"]*)"', tag) for part in ("name", "value"))
        fields[name.group(1)] = value.group(1)
    for name, options in re.findall(r'<select id="[^"]*" name="([^"]*)".*?>(.*?)</select>', text, re.DOTALL):
        fields[name] = re.search(r"<option selected>([^<]*)", options).group(1)
    return fields | {"reward_model": "rm@1", "prompts": "Name a fruit.\n\n Why? \n"}


def submitted(trainer: TestClient, job: str) -> dict:
    return trainer.get(f"/jobs/{job}/artifacts/config.json", headers=SERVICES_KEY).json()


def test_a_job_from_a_preset(browser: TestClient, trainer: TestClient) -> None:
    form = form_of(browser.get("/submit?preset=gpt-neo-125m")) | {"steps": "7", "priority": "2", "lora.top_layers": ""}
    answer = browser.post("/submit", data=form)
    assert answer.status_code == 303
    job = answer.headers["location"].removeprefix("/jobs/")
    config = submitted(trainer, job)
    assert config["prompts"] == ["Name a fruit.", "Why?"]
    assert config["steps"] == 7
    assert config["rollout"]["temperature"] == 0.7  # of configs/ppo-gpt-neo-125m.json, as all below
    assert config["aggregation"] == {"method": "lcb", "lambda": 0.5}
    assert config["lora"]["top_layers"] is None, "emptied"
    assert trainer.get(f"/jobs/{job}", headers=SERVICES_KEY).json()["priority"] == 2
    # A double click sends the same form again, and means the same job.
    assert browser.post("/submit", data=form).headers["location"] == answer.headers["location"]
    other = browser.post("/submit", data=form | {"steps": "8"})
    assert other.status_code == 409
    assert f'name="key" value="{form["key"]}"' not in other.text, "sent again, it makes another job"


def test_what_is_wrong_stands_beside_its_field(browser: TestClient, trainer: TestClient) -> None:
    form = form_of(browser.get("/submit"))
    answer = browser.post("/submit", data=form | {"steps": "0", "rollout.temperature": "warm", "prompts": EVIL})
    assert answer.status_code == 422
    assert re.search(r'id="steps-error">steps: [^<]*greater than or equal to 1 \(got 0\)', answer.text)
    assert re.search(r'id="rollout-temperature-error">[^<]*got &#39;warm&#39;', answer.text)
    assert EVIL not in answer.text
    for change in ({"reward_model": "rm@7"}, {"priority": "99"}, {"prompts": " \n"}):
        (name,) = change
        answer = browser.post("/submit", data=form | change)
        assert answer.status_code == 422
        assert f'id="{name}-error"' in answer.text
    assert "rm@1" in browser.post("/submit", data=form | {"reward_model": "rm@7"}).text, "the trainer's own cure"
    assert trainer.get("/jobs", headers=SERVICES_KEY).json() == []
    assert browser.get("/submit?preset=../x").status_code == 422


def test_a_trainer_that_is_away_is_said_so(settings: ConsoleSettings) -> None:
    away = settings.model_copy(update={"trainer_url": "http://127.0.0.1:9"})
    with TestClient(create_app(away), follow_redirects=False) as client:
        log_in(client)
        for path in ("/", "/jobs/ppo-1", "/parts/jobs"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "Out of reach" in answer.text
            assert "trainer cannot be reached at http://127.0.0.1:9" in answer.text
        assert client.get("/ready").json() == {"status": "ready"}


def test_a_key_that_the_trainer_refuses_is_no_matter_of_the_visitors(browser: TestClient, app) -> None:
    app.state.backends.trainer._http.headers["Authorization"] = "Bearer wrong"
    answer = browser.get("/")
    assert answer.status_code == 503
    assert "RLHF_SERVICES_API_KEY" in answer.text
