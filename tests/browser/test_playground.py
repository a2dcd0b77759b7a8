"""The playground in a browser: two models that write side by side, and what cuts them short."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.visits import Site, Visits

pytestmark = pytest.mark.browser
WATCH = """() => {
    window.lengths = [[], []];
    new MutationObserver(() => {
        for (const card of document.querySelectorAll("[data-side][aria-busy]"))
            window.lengths[card.dataset.side].push(card.querySelector(".said").textContent.length);
    }).observe(document.getElementById("answers-place"), { childList: true, subtree: true });
}"""
"""Keeps how long each answer was whenever it grew."""
STREAM = "**/playground/stream"


@pytest.fixture
def form(page: Page) -> Page:
    page.goto("/playground")
    page.get_by_label("prompt").fill("Say sky")
    page.get_by_label("max tokens").fill("40")
    page.get_by_label("seed").fill("1")
    return page


def compare(page: Page) -> Locator:
    """Sends the form. Returns what tells how far the models are."""
    page.get_by_role("button", name="Compare").click()
    return page.get_by_role("status")


def test_two_models_write_side_by_side(form: Page, site: Site) -> None:
    form.get_by_label("right model").fill(site.adapter)
    form.get_by_label("reward model").fill(site.reward_model)
    form.evaluate(WATCH)
    expect(compare(form)).to_have_text("Both models have answered.")
    for lengths in form.evaluate("window.lengths"):
        assert lengths == sorted(lengths)
        assert len(set(lengths)) > 3, "token by token"
    for side, model in (("Left", "base"), ("Right", site.adapter)):
        answer = form.get_by_role("article", name=f"{side}: {model}")
        expect(answer.locator(".token").first).to_have_attribute("title", re.compile("^log-probability −"))
        expect(answer.get_by_role("row", name="member 2")).to_be_visible()
    expect(form.get_by_role("button", name="Stop")).to_be_hidden()


def test_stop_ends_it(form: Page) -> None:
    form.route(STREAM, lambda route: None)  # No answer comes.
    state = compare(form)
    form.get_by_role("button", name="Stop").click()
    expect(form.locator("#answers-place")).to_have_text("Stopped.")
    expect(form.get_by_role("button", name="Compare")).to_be_focused()
    expect(state).to_have_count(0)


def test_a_console_that_is_gone_is_told(visits: Visits) -> None:
    with visits.open(expected=["ERR_FAILED"]) as page:
        page.goto("/playground")
        page.get_by_label("prompt").fill("Say sky")
        page.route(STREAM, lambda route: route.abort())
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("#answers-place")).to_contain_text("The console cannot be reached")


def test_a_stream_that_breaks_off_is_told(form: Page) -> None:
    form.route(STREAM, lambda route: route.fulfill(content_type="text/event-stream", body="data: {}\n\n"))
    compare(form)
    expect(form.locator("#answers-place")).to_contain_text("The connection broke off")


def test_a_wrong_setting_stands_beside_its_field(visits: Visits) -> None:
    with visits.open(expected=["status of 422"]) as page:
        page.goto("/playground")
        page.get_by_label("prompt").fill("Say sky")
        page.get_by_label("left model").fill("../x")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("#left-error")).to_contain_text("is no reference")
        expect(page.get_by_label("prompt")).to_have_value("Say sky")


def test_a_login_that_has_ended_leads_to_the_form(form: Page) -> None:
    form.context.clear_cookies()
    form.get_by_role("button", name="Compare").click()
    expect(form.get_by_label("API key")).to_be_visible()


def test_without_javascript_the_answers_come_with_the_page(visits: Visits) -> None:
    with visits.open(javascript=False) as page:
        page.goto("/playground")
        page.get_by_label("prompt").fill("Say sky")
        page.get_by_label("max tokens").fill("5")
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("article")).to_have_count(2)
        expect(page.locator(".token").first).to_be_attached()
