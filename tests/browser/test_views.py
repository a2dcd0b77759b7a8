"""Every page, on a laptop and on a phone, light and dark: accessible, within the window, with pictures to look at."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.judging import Judged
from tests.browser.views import VIEWS, View
from tests.browser.visits import NARROW, WIDE, Site, Visits

pytestmark = pytest.mark.browser
SERIOUS = ("serious", "critical")
"""axe-core's impacts that fail a page."""


def violations(page: Page) -> list[str]:
    """What axe-core finds: the rule, and the elements that break it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']]}"
        for each in found
        if each["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_page_is_accessible_and_fits(
    view: View, width: int, visits: Visits, site: Site, judged: Judged, pictures: Path
) -> None:
    visitor = judged.annotator if view.annotator else visits
    with visitor.open(width=width, signed_in=view.signed_in, expected=view.expected) as page:
        page.goto(view.path.format(**vars(site), **vars(judged)))
        view.prepare(page, site)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.screenshot(path=pictures / f"{view.name}-{width}-{scheme}.png", full_page=True)
            assert violations(page) == [], scheme
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, "it scrolls sideways"


def test_letters_have_a_font(visits: Visits) -> None:
    with visits.open(signed_in=False) as page:
        page.goto("/login")
        # Without one every letter is the same box.
        narrow, wide = page.evaluate(
            """() => {
                const pen = document.createElement("canvas").getContext("2d");
                pen.font = getComputedStyle(document.body).font;
                return ["i", "W"].map((letter) => pen.measureText(letter).width);
            }"""
        )
        assert narrow < wide


def test_a_page_that_is_not_accessible_is_found(visits: Visits) -> None:
    with visits.open(signed_in=False) as page:
        page.set_content("<html lang=en><title>No label</title><main><h1>No label</h1><input></main></html>")
        (found,) = violations(page)
        assert found.startswith("label: ")


def run_a_script_of_its_own(visits: Visits) -> None:
    with visits.open(signed_in=False) as page:
        page.goto("/login")
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), { text: '1' }))")


def test_what_the_security_policy_refuses_is_found(visits: Visits) -> None:
    with pytest.raises(AssertionError, match="Content Security Policy"):
        run_a_script_of_its_own(visits)
