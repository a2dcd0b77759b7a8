"""Studies that are deleted: what goes with them, what stays, and what people are told who were judging."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from services.console.store import studies
from services.console.store.models import Judgement, Pair, Skip
from tests.contract.console.conftest import csrf_of
from tests.contract.console.judging import current, judge, judge_all, make_study, pair

Newcomer = Callable[[str], TestClient]


def delete(admin: TestClient, study: int, name: str = "Colours", **form: str):
    page = admin.get(f"/studies/{study}/delete")
    csrf = csrf_of(page if page.status_code == 200 else admin.get("/studies/new"))
    return admin.post(f"/studies/{study}/delete", data={"csrf": csrf, "name": name, **form})


def rows(app: FastAPI) -> list[int]:
    """How many pairs, judgements and skips there are."""
    with app.state.store.reading() as session:
        return [session.scalar(select(func.count()).select_from(kind)) for kind in (Pair, Judgement, Skip)]


@pytest.fixture
def study(browser: TestClient) -> int:
    return make_study(browser, [pair(f"P{number}") for number in range(3)])


def test_a_study_goes_with_its_pairs_and_judgements_and_no_others(
    app: FastAPI, browser: TestClient, newcomer: Newcomer, study: int
) -> None:
    other, anna = make_study(browser, [pair("Q")], name="Other"), newcomer("Anna")
    place = current(anna, study)
    anna.post(f"{place}/skip", data={"csrf": csrf_of(anna.get(place))})
    judge(anna, current(anna, study), "ay")
    judge(anna, current(anna, other), "ay")
    assert rows(app) == [4, 2, 1]
    asked = browser.get(f"/studies/{study}/delete").text
    assert "Its 3 pairs and 1 judgement are deleted for good" in asked
    assert delete(browser, study).headers["location"] == "/studies"
    assert rows(app) == [1, 1, 0]
    assert re.findall(r'href="/studies/(\d+)"', browser.get("/studies").text) == [str(other)]
    for path in (f"/studies/{study}", f"/studies/{study}/delete"):
        assert browser.get(path).status_code == 410
    for path, form in ((f"/studies/{study}/open", {}), ("/datasets", {"study": str(study)})):
        assert browser.post(path, data={"csrf": csrf_of(browser.get("/studies/new")), **form}).status_code == 410
    assert delete(browser, study, "whatever").headers["location"] == "/studies", "deleted is deleted"
    assert browser.get("/studies/99/delete").status_code == 404


def test_its_name_has_to_be_typed(app: FastAPI, browser: TestClient) -> None:
    study = make_study(browser, [pair("P")], name="<b>Colours</b>  of 2")
    for wrong in ("", "colours", "<b>Colours</b>", '"><script>'):
        answer = delete(browser, study, wrong)
        assert answer.status_code == 422
        assert "not the study&#39;s name; type" in answer.text
        assert "<b>Colours" not in answer.text
        assert "<script>" not in answer.text
    assert delete(browser, study, "x", csrf="forged").status_code == 403
    assert rows(app) == [1, 0, 0]
    # A page shows two spaces as one.
    assert delete(browser, study, " <b>Colours</b> of 2 ").status_code == 303


def test_an_annotator_deletes_nothing(app: FastAPI, newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    form = {"csrf": csrf_of(anna.get("/annotate")), "name": "Colours"}
    assert anna.get(f"/studies/{study}/delete").status_code == 403
    assert anna.post(f"/studies/{study}/delete", data=form).status_code == 403
    assert rows(app) == [3, 0, 0]


def test_who_is_judging_is_told_kindly(app: FastAPI, browser: TestClient, newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    judge(anna, current(anna, study), "ay")
    place = current(anna, study)
    csrf = csrf_of(anna.get(place))
    delete(browser, study)
    # The next study's pairs may have the numbers that the deleted ones had.
    make_study(browser, [pair(f"Q{number}") for number in range(3)])
    answers = [anna.get(f"/annotate/{study}"), anna.get(place)]
    for path in (place, f"{place}/skip", f"{place}/undo", f"/annotate/{study}"):
        answers.append(anna.post(path, data={"csrf": csrf, "choice": "tie"}))
    for answer in answers:
        assert answer.status_code == 410
        assert "the study &#39;Colours&#39; is gone" in answer.text
        assert "thank you for what you did" in answer.text
    assert rows(app) == [3, 0, 0]
    assert anna.get("/annotate").text.count('class="button main"') == 1, "the other study alone"


def test_its_datasets_stay_and_say_where_they_came_from(
    browser: TestClient, trainer: TestClient, newcomer: Newcomer
) -> None:
    study = make_study(browser, [pair("P"), pair("Q")])
    judge_all(newcomer("Anna"), study, {"P": "ay", "Q": "bee"})
    csrf = csrf_of(browser.get("/datasets"))
    place = browser.post("/datasets", data={"csrf": csrf, "study": str(study)}).headers["location"]
    before = browser.get(f"{place}/rows.jsonl")
    assert f'href="{place}">dataset version 1' in browser.get(f"/studies/{study}/delete").text
    delete(browser, study)
    after = browser.get(f"{place}/rows.jsonl")
    assert (after.content, after.headers["content-disposition"]) == (
        before.content,
        before.headers["content-disposition"],
    )
    page = browser.get(place)
    assert re.search(r"<dt>Study</dt><dd>Colours <small>deleted ", page.text)
    assert f'href="/studies/{study}"' not in page.text
    assert "Colours, version 1" in browser.get("/datasets").text
    key = re.search(r'name="key" value="([^"]+)"', page.text).group(1)
    answer = browser.post(f"{place}/train", data={"csrf": csrf_of(page), "key": key})
    assert answer.headers["location"].startswith("/jobs/rm-")


def test_the_form_that_made_it_makes_no_other(browser: TestClient) -> None:
    page = browser.get("/studies/new")
    form = {"csrf": csrf_of(page), "key": "0" * 32, "name": "Colours", "ordering": "random"}
    file = b'{"prompt": "P", "responses": ["a", "b"], "policies": ["x", "y"]}'
    made = browser.post("/studies/upload", data=form, files={"file": ("p", file)}).headers["location"]
    delete(browser, int(made.rpartition("/")[2]))
    assert browser.post("/studies/upload", data=form, files={"file": ("p", file)}).headers["location"] == made


def test_a_deletion_is_whole_or_not_at_all(app: FastAPI, browser: TestClient, newcomer: Newcomer, study: int) -> None:
    anna = newcomer("Anna")
    judge(anna, current(anna, study), "ay")

    def remove_and_fail() -> None:
        with app.state.store.writing() as session:
            studies.remove(session, study, "Colours")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        remove_and_fail()
    assert rows(app) == [3, 1, 0]
    assert browser.get(f"/studies/{study}").status_code == 200


def test_judging_while_it_is_deleted_leaves_nothing(app: FastAPI, browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, [pair(f"P{number}") for number in range(30)])
    people = [newcomer(name) for name in ("Anna", "Bert")]
    csrf = csrf_of(browser.get(f"/studies/{study}/delete"))
    places = {client: current(client, study) for client in people}
    forms = {client: {"csrf": csrf_of(client.get(places[client])), "choice": "tie"} for client in people}

    def work(client: TestClient) -> set[int]:
        place, statuses = places[client], set()
        while not statuses - {303}:
            answer = client.post(place, data=forms[client])
            place = answer.headers.get("location", place)
            statuses.add(answer.status_code)
        return statuses

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, client) for client in people]
        deleted = browser.post(f"/studies/{study}/delete", data={"csrf": csrf, "name": "Colours"})
        assert deleted.status_code == 303
    assert [each.result() - {303} for each in working] == [{410}] * 2
    assert rows(app) == [0, 0, 0]
