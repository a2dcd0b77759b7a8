"""What every page is looked at for: a new page is one more line of VIEWS."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from playwright.sync_api import Page, expect

from tests.browser.visits import Site


@dataclass(frozen=True)
class View:
    """A page in one state.

    Attributes:
        name: of its pictures.
        path: with the names of Site's attributes in braces.
        prepare: brings the page into the state.
        signed_in: whether the visitor is.
        expected: see Visits.open.
    """

    name: str
    path: str
    prepare: Callable[[Page, Site], None] = lambda page, site: None
    signed_in: bool = True
    expected: Collection[str] = ()


def compare(page: Page, site: Site) -> None:
    """The playground with two answers and their scores."""
    page.get_by_label("prompt").fill("Say sky")
    page.get_by_label("right model").fill(site.adapter)
    page.get_by_label("reward model").fill(site.reward_model)
    page.get_by_label("max tokens").fill("30")
    page.get_by_label("seed").fill("1")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("status")).to_have_text("Both models have answered.")
    for details in page.get_by_text("Tokens as a table").all():
        details.click()


def submit_wrong(page: Page, site: Site) -> None:
    """The form of a new job, with a reward model that is not there."""
    page.get_by_label("reward model").fill("rm-gone@1")
    page.get_by_label("prompts", exact=True).fill("Say sky")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent on.")


def open_figures(page: Page, site: Site) -> None:
    """A job with all of its last step's figures."""
    page.get_by_text("All figures of the last step").click()


def give_wrong_key(page: Page, site: Site) -> None:
    """The login after a wrong key."""
    page.get_by_label("API key").fill("no key")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("This is not the key.")


VIEWS = (
    View("login", "/login", signed_in=False),
    View("login-refused", "/login", give_wrong_key, signed_in=False, expected=["status of 401"]),
    View("jobs", "/"),
    View("job", "/jobs/{job}", open_figures),
    View("submit", "/submit"),
    View("submit-refused", "/submit", submit_wrong, expected=["status of 422"]),
    View("playground", "/playground"),
    View("answers", "/playground", compare),
    View("not-found", "/nowhere", expected=["status of 404"]),
)
