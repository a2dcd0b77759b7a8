"""What people do with studies in a browser: add people, make a study, judge its pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.visits import Visits, log_in

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
"""What a model may answer, to be read and never run."""
KEYS = {"first": "1", "second": "2", "tie": "3", "both_bad": "4"}
LONG = "Air scatters short waves more than long ones: blue light comes from everywhere. " * 4 + "Ask why."


@dataclass(frozen=True)
class Judged:
    """A study that two annotators have judged but for one pair, which both put aside.

    Attributes:
        study: its number.
        dataset: the number of what was frozen of it.
        judged: the number of a pair that has judgements with comments.
        skipped: the number of the pair without any.
        annotator: one annotator's visits, signed in.
    """

    study: str
    dataset: str
    judged: str
    skipped: str
    annotator: Visits


def pair(prompt: str, a: str, b: str, **more: Any) -> dict[str, Any]:
    """A line of an upload."""
    return {"prompt": prompt, "responses": [a, b], "policies": ["base", "ppo-1a2b3c4d@20"], **more}


def add_person(admin: Page, name: str) -> str:
    """Adds an annotator; returns the key that is shown."""
    admin.goto("/people")
    admin.get_by_label("name", exact=True).fill(name)
    admin.get_by_label("role").select_option("annotator")
    admin.get_by_role("button", name="Add", exact=True).click()
    return admin.get_by_role("status").locator("code").inner_text()


def sign_in(visits: Visits, admin: Page, name: str) -> Visits:
    """The visits of a new annotator."""
    with visits.open(signed_in=False) as page:
        log_in(page, add_person(admin, name), "Annotate")
        return Visits(visits.browser, visits.url, page.context.storage_state())


def make_study(admin: Page, name: str, pairs: Sequence[dict[str, Any]]) -> str:
    """Uploads pairs; returns the study's number."""
    admin.goto("/studies/new")
    form = admin.locator("form[action='/studies/upload']")
    form.get_by_label("name", exact=True).fill(name)
    lines = "\n".join(json.dumps(each) for each in pairs).encode()
    form.get_by_label("pairs").set_input_files({"name": "pairs.jsonl", "mimeType": "text/plain", "buffer": lines})
    form.locator("button").click()
    expect(admin.get_by_role("heading", name=name, level=1)).to_be_visible()
    return admin.url.rpartition("/")[2]


def settled(page: Page) -> None:
    """Waits until the page takes verdicts."""
    expect(page.locator("html[data-settled]")).to_be_attached()


def key_of(page: Page, better: str) -> str:
    """The key for a verdict on the pair that is shown. Args: better, tie, both_bad, or the better response's text."""
    if better in KEYS:
        return KEYS[better]
    return str(page.locator(".judged-sides .said").all_inner_texts().index(better) + 1)


def turn(page: Page, act: Callable[[], None]) -> None:
    """Does what leads to another page, and waits for that."""
    settled(page)
    before = page.url
    act()
    page.wait_for_url(lambda url: url != before)


def judge(page: Page, better: str) -> None:
    """Judges the pair that is shown by keyboard, and waits for the page after it. Args: as key_of's."""
    turn(page, lambda: page.keyboard.press(key_of(page, better)))


def prompt_of(page: Page) -> str:
    """The text of the prompt that is shown."""
    return page.locator("section .said").first.inner_text().removeprefix("user: ")


def freeze(admin: Page, study: str) -> str:
    """Freezes a study from its page; returns the dataset's number."""
    admin.goto(f"/studies/{study}")
    admin.get_by_role("button", name="Freeze as a dataset").click()
    admin.wait_for_url("**/datasets/*")
    return admin.url.rpartition("/")[2]


def make_judged(admin: Page, visits: Visits) -> Judged:
    """A study of four pairs, three of them judged, with all that its pages can show."""
    pairs = [
        pair("Why is the sky blue?", LONG, "Because."),
        pair("Say sky", EVIL, "Sky."),
        pair("What is 2 + 2?", "4", "5", gold="a"),
        pair("Name a fruit that is not round.", "A banana.", ""),
    ]
    better = {"Why is the sky blue?": LONG, "Say sky": "Sky.", "What is 2 + 2?": "4"}
    study = make_study(admin, "Brief and complete", pairs)
    ada, bo = sign_in(visits, admin, "Ada"), sign_in(visits, admin, "Bo")
    places = _judge_but_one(ada, study, better)
    # They differ in one.
    _judge_but_one(bo, study, better | {"What is 2 + 2?": "5"})
    return Judged(study, freeze(admin, study), places["Say sky"], places["Name a fruit that is not round."], ada)


def _judge_but_one(annotator: Visits, study: str, better: dict[str, str]) -> dict[str, str]:
    """Puts aside what is not in `better`. Returns the pairs' numbers by prompt."""
    places = {}
    with annotator.open() as page:
        page.goto(f"/annotate/{study}")
        for _ in range(len(better) + 1):
            prompt = prompt_of(page)
            places[prompt] = page.url.rpartition("/")[2]
            if prompt in better:
                _explain(page, f"I read both twice. {EVIL}")
                judge(page, better[prompt])
            else:
                turn(page, lambda: page.keyboard.press("s"))
    return places


def _explain(page: Page, comment: str) -> None:
    """Writes a comment, and leaves its field, where keys are text."""
    page.get_by_text("Why (if you like").click()
    page.get_by_label("in your own words").fill(comment)
    page.get_by_label("in your own words").blur()
