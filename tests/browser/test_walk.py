"""A person's way through the console: in, a job from its form to its end, and out; once by keyboard alone."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visits import Site, Visits, log_in, tab_to

pytestmark = pytest.mark.browser
SMALL = {
    "prompts per step": "2",
    "samples per prompt": "2",
    "max new tokens": "8",
    "minibatches": "1",
    "steps": "5000",
}
"""Of the preset's settings, those that make a step of the tiny model quick."""


def state(page: Page, name: str) -> None:
    """Waits until the job's page says so by itself."""
    expect(page.get_by_role("status").locator(".chip")).to_have_text(name)


def test_a_wrong_key_a_right_one_and_out_again(visits: Visits, site: Site) -> None:
    with visits.open(signed_in=False, expected=["status of 401"]) as page:
        page.goto(f"/jobs/{site.job}")
        page.get_by_label("API key").fill("no key")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("This is not the key.")
        page.get_by_label("API key").fill(site.key)
        page.get_by_role("button", name="Log in").click()
        # Where the visitor wanted to go.
        expect(page.get_by_role("heading", name=site.job, level=1)).to_be_visible()
        page.get_by_role("link", name="Jobs", exact=True).click()
        expect(page.get_by_role("row").filter(has_text=site.job)).to_contain_text("succeeded")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("API key")).to_be_focused()
        # The page in the browser's memory is not the job's either.
        page.go_back()
        expect(page.get_by_label("API key")).to_be_visible()


def test_a_job_from_its_form_moves_pauses_goes_on_and_is_cancelled(page: Page, site: Site) -> None:
    page.goto("/submit")
    page.get_by_label("Settings for").select_option("gpt-neo-125m")
    page.get_by_role("button", name="Fill the form with these").click()
    expect(page.get_by_text("as in the preset gpt-neo-125m")).to_be_visible()
    page.get_by_label("reward model").fill(site.reward_model)
    page.get_by_label("prompts", exact=True).fill("Say sky\nSay sea")
    for label, value in SMALL.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url("**/jobs/ppo-*")

    page.evaluate("window.sameDocument = true")
    state(page, "running")
    chart = page.get_by_role("figure").filter(has_text="Reward").first.get_by_role("img")
    expect(chart).to_have_attribute("aria-label", re.compile(r"Reward, \d+ steps: "))
    drawn = chart.get_attribute("aria-label")
    assert drawn is not None
    # Not its dots: a fast machine's series is soon too long to have any.
    expect(chart).not_to_have_attribute("aria-label", drawn)
    expect(page.locator("details.sample").first).to_contain_text("Say")
    assert page.evaluate("window.sameDocument"), "it renewed itself, without a reload"

    page.get_by_role("button", name="Pause").click()
    state(page, "paused")
    page.get_by_role("button", name="Resume").click()
    state(page, "running")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    state(page, "cancelled")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_the_keyboard_alone_logs_in_and_submits(visits: Visits, site: Site) -> None:
    with visits.open(signed_in=False) as page:
        page.goto("/login?next=/submit")
        page.keyboard.type(site.key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="New PPO job")).to_be_visible()
        values = {"reward_model": site.reward_model, "prompts": "Say sky", "steps": "1"}
        values |= {"rollout-prompts_per_step": "1", "rollout-samples_per_prompt": "2", "rollout-max_new_tokens": "4"}
        values |= {"update-minibatches": "1"}
        for name, value in values.items():
            tab_to(page, name)
            page.keyboard.press("Control+a")
            page.keyboard.type(value)
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs/ppo-*")
        state(page, "succeeded")


def test_a_login_of_ones_own_ends_nobody_elses(visits: Visits, site: Site, page: Page) -> None:
    with visits.open(signed_in=False) as other:
        log_in(other, site.key)
        other.get_by_role("button", name="Log out").click()
        expect(other.get_by_label("API key")).to_be_visible()
    page.goto("/")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
