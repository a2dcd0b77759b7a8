"""People: keys, roles, removal, and the limit on guesses."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from rlhf.contracts.errors import Overloaded
from services.console.guesses import Guesses
from services.console.sessions import COOKIE
from services.console.store.models import Person
from tests.contract.console.conftest import KEY, add_person, csrf_of, log_in

EVIL = "<script>alert(1)</script>"
Newcomer = Callable[[str], TestClient]


def person_id(app: FastAPI, name: str) -> int:
    with app.state.store.reading() as session:
        return session.scalars(select(Person.id).where(Person.name == name)).one()


def test_an_annotator_has_a_key_and_only_the_pages_to_annotate(newcomer: Newcomer) -> None:
    anna = newcomer("Anna")
    assert anna.get("/").headers["location"] == "/annotate"
    for path in ("/submit", "/playground", "/jobs/x", "/parts/jobs", "/people", "/annotated", "/annotate/../people"):
        answer = anna.get(path)
        assert answer.status_code == 403, path
        assert "is for admins" in answer.text
    # A token of one's own session opens no form of an admin's either.
    csrf = csrf_of(anna.get("/people"))
    for path in ("/people", "/people/1/remove", "/jobs/x/cancel", "/submit"):
        assert anna.post(path, data={"csrf": csrf}).status_code == 403, path
    assert anna.post("/logout", data={"csrf": csrf}).headers["location"] == "/login"


def test_a_further_admin_may_do_everything(app: FastAPI, browser: TestClient) -> None:
    other = TestClient(app, follow_redirects=False)
    log_in(other, add_person(browser, "Berta", role="admin"))
    assert other.get("/people").status_code == 200


def test_a_key_is_shown_once_and_kept_as_a_digest(app: FastAPI, browser: TestClient) -> None:
    key = add_person(browser, "Anna")
    assert key not in browser.get("/people").text
    with app.state.store.reading() as session:
        anna = session.scalars(select(Person).where(Person.name == "Anna")).one()
    secret = key.partition("-")[2]
    assert len(secret) == 32  # 24 bytes in base64
    assert all(secret not in str(value) for value in vars(anna).values())


def test_a_name_is_taken_once_and_shown_as_text(browser: TestClient) -> None:
    add_person(browser, EVIL)
    again = browser.post("/people", data={"csrf": csrf_of(browser.get("/people")), "name": EVIL, "role": "annotator"})
    assert again.status_code == 409
    assert EVIL not in again.text
    assert again.text.count("&lt;script&gt;") >= 2
    for wrong in ({"name": " "}, {"name": "x" * 81}, {"name": "x", "role": "king"}):
        answer = browser.post("/people", data={"csrf": csrf_of(again), "role": "annotator"} | wrong)
        assert answer.status_code == 422


def test_who_is_removed_is_out_at_once_and_comes_back_with_another_key(
    app: FastAPI, browser: TestClient, newcomer: Newcomer
) -> None:
    anna, number = newcomer("Anna"), person_id(app, "Anna")
    old = anna.cookies[COOKIE]
    assert anna.get("/people").status_code == 403
    csrf = csrf_of(browser.get("/people"))
    assert browser.post(f"/people/{number}/remove", data={"csrf": csrf}).headers["location"] == "/people"
    assert anna.get("/annotate").headers["location"].startswith("/login")
    renewed = browser.post(f"/people/{number}/key", data={"csrf": csrf}).text
    key = renewed.partition('<code class="wrap">')[2].partition("<")[0]
    anna.cookies.clear()
    anna.cookies.set(COOKIE, old)
    assert anna.get("/annotate").headers["location"].startswith("/login"), "the old login does not come back"
    anna.cookies.clear()
    assert log_in(anna, key).status_code == 303


def test_a_removed_or_replaced_key_is_no_key(app: FastAPI, browser: TestClient) -> None:
    first = add_person(browser, "Anna")
    csrf, number = csrf_of(browser.get("/people")), person_id(app, "Anna")
    browser.post(f"/people/{number}/key", data={"csrf": csrf})
    visitor = TestClient(app, follow_redirects=False)
    assert log_in(visitor, first).status_code == 401
    for wrong in (f"{number}-", f"{number}", "0-x", "99999999999999999999-" + "x" * 32, "é" * 30):
        assert log_in(visitor, wrong).status_code == 401


def test_the_operator_cannot_be_removed(app: FastAPI, browser: TestClient) -> None:
    csrf, number = csrf_of(browser.get("/people")), person_id(app, "operator")
    for action in ("remove", "key"):
        answer = browser.post(f"/people/{number}/{action}", data={"csrf": csrf})
        assert answer.status_code == 409
        assert "RLHF_API_KEY" in answer.text
    assert browser.post("/people/99/remove", data={"csrf": csrf}).status_code == 404


def test_too_many_wrong_keys_have_to_wait(app: FastAPI, visitor: TestClient) -> None:
    for _ in range(app.state.settings.login_guesses_per_address):
        assert log_in(visitor, "guess").status_code == 401
    answer = log_in(visitor, KEY)
    assert answer.status_code == 429, "the right key too: otherwise one could go on guessing"
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    assert "try again in" in answer.text


def test_guesses_are_limited_by_address_and_in_all() -> None:
    now = [0.0]
    guesses = Guesses(per_address=2, in_all=3, window_s=10, now=lambda: now[0])
    guesses.begin("1.2.3.4")
    now[0] = 4
    guesses.begin("1.2.3.4")
    with pytest.raises(Overloaded) as refused:
        guesses.begin("1.2.3.4")
    assert refused.value.retry_after == 6  # the first is forgotten at 10
    guesses.begin("2001:db8::1")
    with pytest.raises(Overloaded, match="3 in 10 s"):
        guesses.begin("5.6.7.8")
    guesses.forgive("2001:db8::ffff")  # of the same /64
    guesses.begin("5.6.7.8")
    now[0] = 10.5
    guesses.begin("1.2.3.4")


def test_right_keys_are_no_guesses(visitor: TestClient, app: FastAPI) -> None:
    for _ in range(app.state.settings.login_guesses_per_address + 1):
        assert log_in(visitor).status_code == 303
        visitor.cookies.clear()
