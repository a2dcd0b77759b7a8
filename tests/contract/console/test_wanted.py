"""Studies that want a number of judgements a pair: who gets what, and how far they are."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from services.console.store import queue
from services.console.store.models import Judgement
from tests.contract.console.conftest import csrf_of
from tests.contract.console.judging import current, judge, make_study, pair, upload

Newcomer = Callable[[str], TestClient]
PAIRS = [pair(f"P{number}") for number in range(3)]


def judged(app: FastAPI) -> Counter[int]:
    """Judgements by pair."""
    with app.state.store.reading() as session:
        return Counter(session.scalars(select(Judgement.pair_id)))


def finish(person: TestClient, study: int) -> int:
    """Judges all that a person gets. Returns how much that was."""
    done = 0
    while (place := current(person, study)) is not None:
        judge(person, place, "tie")
        done += 1
    return done


def test_a_pair_that_has_enough_goes_to_nobody_else(app: FastAPI, browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, PAIRS, wanted="1")
    anna, bert = newcomer("Anna"), newcomer("Bert")
    first = current(anna, study)
    judge(anna, first, "ay")
    text = " ".join(anna.get("/annotate").text.split())
    assert "1 of 3 judgements given; you have judged 1" in text
    # Anna has the second before her.
    assert current(bert, study) not in (first, current(anna, study))
    assert finish(bert, study) == 1
    assert finish(anna, study) == 1
    assert set(judged(app).values()) == {1}
    assert len(judged(app)) == 3
    assert "Nothing is left" in bert.get(f"/annotate/{study}").text
    page = " ".join(browser.get(f"/studies/{study}").text.split())
    assert "<dt>Judgements a pair</dt><dd>1 <small>3 of 3 wanted ones are there</small>" in page
    assert 'Anna</th><td class="number">2</td>' in page
    assert '<td class="number">3 of 3</td>' in browser.get("/studies").text
    assert "Done: look at it" in newcomer("Clara").get("/annotate").text


def test_people_at_once_give_what_is_wanted_and_no_more(app: FastAPI, browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, [pair(f"P{number}") for number in range(8)], wanted="2")
    people = [newcomer(name) for name in ("Anna", "Bert", "Clara", "Dora")]
    with ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(lambda person: finish(person, study), people))
    # Whoever finds the last pairs before others stops; nobody is left with one that lacks a judgement.
    assert done == 16
    assert set(judged(app).values()) == {2}


def test_what_somebody_leaves_comes_back(
    app: FastAPI, browser: TestClient, newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(browser, PAIRS[:1], wanted="1")
    anna, bert = newcomer("Anna"), newcomer("Bert")
    place = current(anna, study)
    assert current(anna, study) == place, "loaded again it is the same"
    assert "Others have the last 1 pair before them" in bert.get(f"/annotate/{study}").text
    monkeypatch.setattr(queue, "TURN_S", 0.0)
    assert current(bert, study) == place
    judge(bert, place, "ay")
    # Anna was away for long; what she judged is kept all the same.
    assert judge(anna, place, "bee").status_code == 303
    assert set(judged(app).values()) == {2}
    assert "1 of 1 judgements given" in anna.get(f"/annotate/{study}").text


def test_undone_and_skipped_pairs_are_there_for_others(browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, PAIRS[:1], wanted="1")
    anna, bert = newcomer("Anna"), newcomer("Bert")
    place = current(anna, study)
    judge(anna, place, "ay")
    assert current(bert, study) is None
    csrf = csrf_of(anna.get(place))
    anna.post(f"{place}/undo", data={"csrf": csrf})
    assert current(bert, study) == place
    anna.post(f"{place}/skip", data={"csrf": csrf})
    assert "Show the 1 skipped again" in anna.get(f"/annotate/{study}").text
    judge(bert, place, "ay")
    assert "skipped" not in anna.get(f"/annotate/{study}").text, "it has enough"
    assert anna.post(f"/annotate/{study}", data={"csrf": csrf}).headers["location"] == f"/annotate/{study}"


def test_questions_that_check_attention_are_asked_of_everybody(browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, [*PAIRS, pair("G", gold="a"), pair("H", gold="b")], wanted="2")
    people = [newcomer(name) for name in ("Anna", "Bert", "Clara")]
    asked = [finish(person, study) for person in people]
    # Two judge all three pairs and the questions before the last of them; for the third nothing is left to be checked.
    assert asked[0] == asked[1] >= 3
    assert asked[2] == 0
    assert "6 of 6 wanted ones" in browser.get(f"/studies/{study}").text


def test_a_deleted_study_takes_its_turns_along(browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, PAIRS, wanted="1")
    assert current(newcomer("Anna"), study)
    csrf = csrf_of(browser.get(f"/studies/{study}/delete"))
    assert browser.post(f"/studies/{study}/delete", data={"csrf": csrf, "name": "Colours"}).status_code == 303


@pytest.mark.parametrize("wanted", ["0", "11", "-1", "two", "1.5", "²"])
def test_a_number_that_cannot_be_wanted_is_told(browser: TestClient, wanted: str) -> None:
    answer = upload(browser, PAIRS, wanted=wanted)
    assert answer.status_code == 422
    assert f"judgements a pair is &#39;{wanted}&#39;; give 1 to 10" in answer.text
    assert f'name="wanted" value="{wanted}"' in answer.text


def test_questions_alone_want_no_number(browser: TestClient) -> None:
    assert upload(browser, [pair("G", gold="a")], wanted="1").status_code == 422
    assert "of everybody" in browser.get(f"/studies/{make_study(browser, [pair('G', gold='a')])}").text
