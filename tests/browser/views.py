"""What every page is looked at for: a new page is one more line of VIEWS."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from playwright.sync_api import FilePayload, Page, expect

from tests.browser.visits import Site


@dataclass(frozen=True)
class View:
    """A page in one state.

    Attributes:
        name: of its pictures.
        path: with the names of attributes of Site and Judged in braces.
        prepare: brings the page into the state.
        signed_in: whether the visitor is.
        annotator: whether an annotator visits it, not an admin.
        expected: see Visits.open.
    """

    name: str
    path: str
    prepare: Callable[[Page, Site], None] = lambda page, site: None
    signed_in: bool = True
    annotator: bool = False
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


def evaluate_wrong(page: Page, site: Site) -> None:
    """The form of an evaluation, with a file that is no benchmark's."""
    page.get_by_label("adapter", exact=True).fill(site.adapter)
    page.get_by_label("gates", exact=True).fill("xstest/change/over_refusal <= 0.05")
    file = FilePayload(name="a.csv", mimeType="text/csv", buffer=b"question\nHi\n")
    page.get_by_label("XSTest").set_input_files(file)
    page.get_by_role("button", name="Submit the evaluation").click()
    expect(page.locator("#xstest-error")).to_be_visible()


def open_figures(page: Page, site: Site) -> None:
    """A job with all of its last step's figures."""
    page.get_by_text("All figures of the last step").click()


def give_wrong_key(page: Page, site: Site) -> None:
    """The login after a wrong key."""
    page.get_by_label("API key").fill("no key")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("This is not the key.")


def draw_key(page: Page, site: Site) -> None:
    """People, with a new key that is shown."""
    page.get_by_label("name", exact=True).fill(f"Cy, {page.evaluate('innerWidth')} wide")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("status").locator("code")).to_be_visible()


def add_again(page: Page, site: Site) -> None:
    """People, with a name that is taken."""
    page.get_by_label("name", exact=True).fill("Ada")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#name-error")).to_be_visible()


def upload_wrong(page: Page, site: Site) -> None:
    """The form of a new study, with a file that holds no pairs."""
    form = page.locator("form[action='/studies/upload']")
    form.get_by_label("name", exact=True).fill("Colours")
    form.get_by_label("pairs").set_input_files({"name": "pairs.jsonl", "mimeType": "text/plain", "buffer": b"{}"})
    form.locator("button").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent on.")


def delete_wrong(page: Page, site: Site) -> None:
    """The form that deletes a study, with another name than the study's."""
    page.get_by_label("the study's name").fill("Brief")
    page.get_by_role("button", name="Delete the study").click()
    expect(page.locator("#name-error")).to_be_visible()


def open_reasons(page: Page, site: Site) -> None:
    """A pair with its reasons."""
    page.get_by_text("Why (if you like").click()


VIEWS = (
    View("login", "/login", signed_in=False),
    View("login-refused", "/login", give_wrong_key, signed_in=False, expected=["status of 401"]),
    View("jobs", "/"),
    View("job", "/jobs/{job}", open_figures),
    View("submit", "/submit"),
    View("submit-refused", "/submit", submit_wrong, expected=["status of 422"]),
    View("evaluate", "/evaluate?adapter={adapter}"),
    View("evaluate-refused", "/evaluate", evaluate_wrong, expected=["status of 422"]),
    View("playground", "/playground"),
    View("answers", "/playground", compare),
    View("people", "/people"),
    View("people-key", "/people", draw_key),
    View("people-refused", "/people", add_again, expected=["status of 409"]),
    View("studies", "/studies"),
    View("study", "/studies/{study}"),
    View("study-deletion", "/studies/{study}/delete", delete_wrong, expected=["status of 422"]),
    View("new-study", "/studies/new"),
    View("new-study-refused", "/studies/new", upload_wrong, expected=["status of 422"]),
    View("datasets", "/datasets"),
    View("dataset", "/datasets/{dataset}"),
    View("annotate", "/annotate", annotator=True),
    View("pair", "/annotate/{study}/{skipped}", open_reasons, annotator=True),
    View("pair-judged", "/annotate/{study}/{judged}", annotator=True),
    View("annotate-end", "/annotate/{study}", annotator=True),
    View("annotator-refused", "/studies", annotator=True, expected=["status of 403"]),
    View("not-found", "/nowhere", expected=["status of 404"]),
)
