"""Annotating: blind, one's own, nothing lost and nothing counted twice."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from services.console.store.models import Judgement, Person
from tests.contract.console.conftest import add_person, csrf_of, log_in
from tests.contract.console.judging import current, judge, judge_all, make_study, pair, side_of

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
Newcomer = Callable[[str], TestClient]


def kept(app: FastAPI) -> list[tuple[str, str, str | None]]:
    """Who judged what, and what it replaced."""
    query = select(Person.name, Judgement.verdict, Judgement.replaced).join(Person, Judgement.person_id == Person.id)
    with app.state.store.reading() as session:
        return [tuple(row) for row in session.execute(query.order_by(Person.name, Judgement.pair_id))]


@pytest.fixture
def study(browser: TestClient) -> int:
    return make_study(browser, [pair(f"P{number}") for number in range(3)])


def test_a_person_gets_every_pair_once(app: FastAPI, newcomer: Newcomer, study: int) -> None:
    anna, seen = newcomer("Anna"), []
    while (place := current(anna, study)) is not None:
        seen.append(place)
        answer = judge(anna, place, "ay")
        assert answer.headers["location"] == (current(anna, study) or f"/annotate/{study}")
    assert len(seen) == len(set(seen)) == 3
    assert kept(app) == [("Anna", "a", None)] * 3
    assert "Nothing is left" in anna.get(f"/annotate/{study}").text
    assert "3 of 3 judged" in anna.get("/annotate").text


def test_nothing_tells_who_wrote_what_unless_the_study_says_so(browser: TestClient, newcomer: Newcomer) -> None:
    anna = newcomer("Anna")
    blind = make_study(browser, [pair("P", gold="a")], reward_model="rm@1")
    text = anna.get(current(anna, blind)).text
    assert not [sign for sign in ("ppo-1", "base", "gold", "1.5", "rm@1") if sign in text]
    told = make_study(browser, [pair("P")], blind="")
    assert "ppo-1@3" in anna.get(current(anna, told)).text


def test_every_choice_has_its_key_and_needs_no_script(newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    place = current(anna, study)
    judge(anna, place, "tie")
    page = anna.get(current(anna, study)).text
    assert re.findall(r'<button[^>]* data-key="(\w)"', page) == ["u", "1", "2", "3", "4", "s"]
    assert re.findall(r'<button name="choice" value="(\w+)"', page) == ["first", "second", "tie", "both_bad"]
    assert '<script src="/static/annotate.js" defer></script>' in page
    assert anna.get("/static/annotate.js").status_code == 200


def test_sides_differ_between_people_and_pairs_and_stay(app: FastAPI, browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, [pair(f"P{number}") for number in range(8)])
    anna, first = newcomer("Anna"), []
    while (place := current(anna, study)) is not None:
        page = anna.get(place)
        assert side_of(page, "ay") == side_of(anna.get(place), "ay")
        first.append(side_of(page, "ay"))
        judge(anna, place, "ay")
    assert {"first", "second"} == set(first)
    assert {verdict for _, verdict, _ in kept(app)} == {"a"}, "the verdict is the response's, wherever it stood"


def test_the_same_verdict_twice_is_one_judgement(app: FastAPI, newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    place = current(anna, study)
    for _ in range(2):
        assert judge(anna, place, "bee").status_code == 303
    assert kept(app) == [("Anna", "b", None)]


def test_another_verdict_after_going_back_takes_its_place_and_says_so(
    app: FastAPI, newcomer: Newcomer, study: int
) -> None:
    anna = newcomer("Anna")
    place = current(anna, study)
    judge(anna, place, "ay", comment=" so ", **{"reason-brief": "on", "reason-foreign": "on"})
    page = anna.get(place)
    assert "You have judged this pair" in page.text
    assert 'name="reason-brief" checked' in page.text
    assert ">so</textarea>" in page.text
    judge(anna, place, "tie")
    assert kept(app) == [("Anna", "tie", "a")]
    assert "in place of: response" in anna.get(current(anna, study)).text


def test_undo_brings_the_pair_back(app: FastAPI, newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    place = current(anna, study)
    page = anna.get(judge(anna, place, "both_bad").headers["location"])
    assert f'action="{place}/undo"' in page.text
    for _ in range(2):
        assert anna.post(f"{place}/undo", data={"csrf": csrf_of(page)}).headers["location"] == place
    assert kept(app) == []
    assert current(anna, study) == place


def test_what_is_skipped_comes_back_when_asked_for(app: FastAPI, newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    place = current(anna, study)
    csrf = csrf_of(anna.get(place))
    for _ in range(2):
        assert anna.post(f"{place}/skip", data={"csrf": csrf}).headers["location"] != place
    judge_all(anna, study, dict.fromkeys(("P0", "P1", "P2"), "ay"))
    assert "Show the 1 skipped again" in anna.get(f"/annotate/{study}").text
    assert anna.post(f"/annotate/{study}", data={"csrf": csrf}).headers["location"] == place
    judge(anna, place, "ay")
    assert len(kept(app)) == 3


def test_nobody_can_touch_what_another_judged(app: FastAPI, newcomer: Newcomer, study: int) -> None:
    anna, bert = newcomer("Anna"), newcomer("Bert")
    place = current(anna, study)
    judge(anna, place, "ay")
    assert "You have judged" not in bert.get(place).text
    bert.post(f"{place}/undo", data={"csrf": csrf_of(bert.get(place))})
    assert kept(app) == [("Anna", "a", None)]
    judge(bert, place, "bee")
    assert kept(app) == [("Anna", "a", None), ("Bert", "b", None)]
    forged = anna.post(place, data={"csrf": csrf_of(bert.get(place)), "choice": "tie"})
    assert forged.status_code == 403
    posed = anna.post(place, data={"csrf": csrf_of(anna.get(place)), "choice": "tie", "person": "3", "first": "b"})
    assert posed.status_code == 303
    assert kept(app) == [("Anna", "tie", "a"), ("Bert", "b", None)]


def test_annotators_see_no_results(newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    csrf = csrf_of(anna.get("/annotate"))
    for path in ("/studies", f"/studies/{study}", "/studies/new", "/datasets", "/datasets/1", "/datasets/1/rows.jsonl"):
        assert anna.get(path).status_code == 403, path
    for path in ("/datasets", "/datasets/1/train", f"/studies/{study}/close", "/studies/upload", "/studies/generate"):
        assert anna.post(path, data={"csrf": csrf, "study": str(study)}).status_code == 403, path


def test_people_at_once_lose_nothing_and_count_nothing_twice(app: FastAPI, browser: TestClient) -> None:
    prompts = [f"P{number}" for number in range(6)]
    study = make_study(browser, [pair(prompt) for prompt in prompts])
    keys = {name: add_person(browser, name) for name in ("Anna", "Bert")}

    def work(name: str) -> None:
        client = TestClient(app, follow_redirects=False)
        log_in(client, keys[name])
        judge_all(client, study, dict.fromkeys(prompts, "ay" if name == "Anna" else "bee"))

    # Each of them twice: two tabs, or every click doubled.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ["Anna", "Bert"] * 2))
    assert kept(app) == [("Anna", "a", None)] * 6 + [("Bert", "b", None)] * 6


def test_one_click_sent_many_times_at_once_is_one_judgement(app: FastAPI, newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    place = current(anna, study)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: judge(anna, place, "ay").status_code, range(8)))
    assert answers == [303] * 8
    with app.state.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Judgement)) == 1


def test_text_of_models_and_people_stays_text(browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, [pair(EVIL, EVIL, "bee")], name=EVIL)
    anna = newcomer("Anna")
    place = current(anna, study)
    pages = [anna.get("/annotate"), anna.get(place)]
    judge(anna, place, "bee", comment=EVIL)
    pages += [anna.get(place), browser.get(f"/studies/{study}"), browser.get("/studies")]
    made = browser.post("/datasets", data={"csrf": csrf_of(browser.get("/studies")), "study": str(study)})
    pages += [browser.get(made.headers["location"]), browser.get("/datasets")]
    for page in pages:
        assert page.status_code == 200
        assert "&lt;script&gt;alert(1)" in page.text
        assert not re.search("<script>|<img", page.text)


def test_wrong_forms_and_places_are_told(browser: TestClient, newcomer: Newcomer, study: int) -> None:
    anna, other = newcomer("Anna"), make_study(browser, [pair("Q")])
    place = current(anna, study)
    for form in ({}, {"choice": "third"}, {"choice": "tie", "comment": "x" * 2001}, {"choice": "tie", "comment": "\0"}):
        assert anna.post(place, data={"csrf": csrf_of(anna.get(place)), **form}).status_code == 422, form
    for lost in (f"/annotate/{study}/999", f"/annotate/{other}/{place.rpartition('/')[2]}", "/annotate/999"):
        assert anna.get(lost).status_code == 404, lost
    assert anna.get(f"/annotate/{2**31}").status_code == 422
    browser.post(f"/studies/{study}/close", data={"csrf": csrf_of(browser.get("/studies"))})
    answer = anna.post(place, data={"csrf": csrf_of(anna.get("/annotate")), "choice": "tie"})
    assert answer.status_code == 409
    assert "is closed" in answer.text
    assert anna.get("/annotate").text.count('class="button main"') == 1, "the other study alone"
