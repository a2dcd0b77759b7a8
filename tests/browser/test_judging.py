"""People's judgements, from their keys to a reward model that learned from them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.judging import (
    EVIL,
    Judged,
    freeze,
    judge,
    key_of,
    make_study,
    pair,
    prompt_of,
    settled,
    sign_in,
    turn,
)
from tests.browser.visits import Visits

pytestmark = pytest.mark.browser
PAIRS = [pair(f"Say {number}", f"{number}.", f"{number}, {number}!") for number in range(20)]
"""The first response of the file is `a`, the second `b`."""


def prefer(number: int) -> str:
    """What both prefer, but for a few: a where the number is even, b where it is odd."""
    return PAIRS[number]["responses"][number % 2]


ADA = {f"Say {number}": prefer(number) for number in range(18)} | {"Say 18": "tie", "Say 19": "tie"}
BO = ADA | {"Say 0": PAIRS[0]["responses"][1], "Say 1": PAIRS[1]["responses"][0]}
KAPPA = "0.829"
"""Both gave 9 a, 9 b and 2 ties and agree in 18 of 20: by chance 2 × 0.45² + 0.1² = 0.415, (0.9 − 0.415) / 0.585."""
ALPHA = "0.8333"
"""Of the 40 verdicts 18 are a, 18 b and 4 ties: two drawn differ in 1 − (2 × 18 × 17 + 4 × 3) / (40 × 39) = 0.6 of all
cases; 2 of 20 pairs differ: 1 − 0.1 / 0.6."""
ROWS = 16
"""20 less two ties, less two without a majority."""


def counts(page: Page, count: int) -> None:
    """Waits until the page tells how many it counts."""
    expect(page.get_by_text(f"{count} of 20 judged")).to_be_visible()


def click_twice(page: Page, better: str) -> None:
    turn(page, lambda: page.locator(f"[data-key='{key_of(page, better)}']").dblclick())


def go_back_and_repeat(page: Page, better: str) -> None:
    judge(page, better)
    page.go_back()
    expect(page.get_by_text("You have judged this pair")).to_be_visible()
    judge(page, better)


def reload_after(page: Page, better: str) -> None:
    judge(page, better)
    page.reload()


def be_offline_meanwhile(page: Page, better: str) -> None:
    page.get_by_text("Why (if you like").click()
    comment = page.get_by_label("in your own words")
    comment.fill("in the train")
    comment.blur()
    page.context.set_offline(True)
    settled(page)
    page.keyboard.press(key_of(page, better))
    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent")
    expect(comment).to_have_value("in the train")
    page.context.set_offline(False)
    judge(page, better)


INTERRUPTED: dict[int, Callable[[Page, str], None]] = {
    3: click_twice,
    6: go_back_and_repeat,
    9: reload_after,
    12: be_offline_meanwhile,
}
"""Ways to judge other than by a key, by how many are judged before."""


def judge_all(visits: Visits, study: str, better: dict[str, str], ways: dict[int, Callable[[Page, str], None]]) -> None:
    with visits.open(expected=["ERR_INTERNET_DISCONNECTED"]) as page:
        page.goto(f"/annotate/{study}")
        for done in range(20):
            counts(page, done)
            ways.get(done, judge)(page, better[prompt_of(page)])
        counts(page, 20)
        expect(page.get_by_text("Nothing is left in your queue.")).to_be_visible()


def test_judgements_become_a_reward_model(page: Page, visits: Visits, tmp_path: Path) -> None:
    ada, bo = sign_in(visits, page, "Ada of twenty"), sign_in(visits, page, "Bo of twenty")
    study = make_study(page, "Twenty", PAIRS)
    judge_all(ada, study, ADA, INTERRUPTED)
    judge_all(bo, study, BO, {})

    page.goto(f"/studies/{study}")
    people = page.get_by_role("region", name="People")
    for name in ("Ada of twenty", "Bo of twenty"):
        expect(people.get_by_role("row").filter(has_text=name)).to_contain_text("20 of 20")
    agreement = page.get_by_role("region", name="Agreement")
    expect(agreement).to_contain_text(f"α over everybody: {ALPHA}")
    expect(agreement.get_by_role("row").filter(has_text="Ada of twenty, Bo of twenty")).to_contain_text(KAPPA)
    expect(page.locator(".events li")).to_have_text([re.compile("in the train")])

    freeze(page, study)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download JSON Lines").click()
    download.value.save_as(tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    # Where a majority is, it is Ada's.
    assert {row["prompt"][0]["content"]: row["chosen"][0]["content"] for row in rows} == {
        f"Say {number}": prefer(number) for number in range(2, 18)
    }
    assert len(rows) == ROWS

    page.get_by_role("button", name="Train a reward model on it").click()
    page.wait_for_url("**/jobs/rm-*")
    job = page.url.rpartition("/")[2]
    expect(page.get_by_role("status").locator(".chip")).to_have_text("succeeded")
    score(page, f"{job}@1")


def score(page: Page, reward_model: str) -> None:
    """The playground has it to choose, and its members score an answer."""
    page.goto("/playground")
    expect(page.locator(f"option[value='{reward_model}']")).to_be_attached()
    page.get_by_label("prompt").fill("Say 1")
    page.get_by_label("reward model").fill(reward_model)
    page.get_by_label("max tokens").fill("4")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("row", name="member 5")).to_have_count(2)


def test_a_page_takes_no_verdict_at_once(page: Page) -> None:
    study = make_study(page, "Two", PAIRS[:2])
    page.clock.install(time=0)
    page.clock.pause_at(1)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.goto(f"/annotate/{study}")
    first = page.url
    page.clock.run_for(300)
    page.keyboard.press("1")
    page.locator("[data-key='1']").click()
    page.clock.run_for(100)
    judge(page, "tie")
    assert sent == [first]


def test_what_models_and_people_write_is_text(page: Page, judged: Judged) -> None:
    dialogs: list[str] = []
    with judged.annotator.open() as pair_page:
        for each, place in (
            (pair_page, f"/annotate/{judged.study}/{judged.judged}"),
            (page, f"/studies/{judged.study}"),
            (page, f"/datasets/{judged.dataset}"),
        ):
            each.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
            each.goto(place)
            expect(each.get_by_text(EVIL).first).to_be_visible()
            # Not only did the security policy keep it from running: it is no element at all.
            expect(each.locator("main :is(script, img)")).to_have_count(0)
    assert dialogs == []
