"""Who gets in, and what a browser is told to keep out."""

import re

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError

from services.console.sessions import COOKIE, Sessions
from services.console.settings import ConsoleSettings
from services.console.store.models import Role
from tests.contract.console.conftest import KEY, NOWHERE, csrf_of, log_in


def test_without_a_login_there_is_the_login_form_alone(visitor: TestClient) -> None:
    for path in ("/", "/submit", "/playground", "/jobs/x", "/parts/jobs", "/docs", "/openapi.json"):
        answer = visitor.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login")
    assert visitor.post("/jobs/x/cancel").headers["location"] == "/login"
    for path in ("/health", "/ready", "/metrics", "/static/console.js", "/static/report.css", "/login"):
        assert visitor.get(path).status_code == 200, path


def test_a_wrong_key_is_refused(visitor: TestClient) -> None:
    answer = log_in(visitor, "guess")
    assert answer.status_code == 401
    assert "not the key" in answer.text
    assert "guess" not in answer.text
    assert visitor.get("/").status_code == 303


def test_the_right_key_leads_back_to_where_one_was(visitor: TestClient) -> None:
    assert log_in(visitor, to="/playground").headers["location"] == "/playground"
    assert visitor.get("/").status_code == 200


@pytest.mark.parametrize("elsewhere", ["//evil", "https://evil", "/\\evil", "javascript:x"])
def test_a_login_leads_nowhere_else(visitor: TestClient, elsewhere: str) -> None:
    assert log_in(visitor, to=elsewhere).headers["location"] == "/"


def test_the_cookie_is_for_this_site_and_out_of_reach_of_scripts(app: FastAPI) -> None:
    for url, secure in (("http://testserver", False), ("https://testserver", True)):
        client = TestClient(app, base_url=url, follow_redirects=False)
        cookie = log_in(client).headers["set-cookie"].lower()
        assert cookie.startswith(f"{COOKIE}=admin.1.1.")
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert ("secure" in cookie) is secure
        assert KEY not in cookie


def test_a_session_from_before_the_login_stays_signed_out(visitor: TestClient) -> None:
    visitor.get("/login")
    planted = visitor.cookies[COOKIE]
    log_in(visitor)
    assert visitor.cookies[COOKIE] != planted
    visitor.cookies.clear()
    visitor.cookies.set(COOKIE, planted)
    assert visitor.get("/").status_code == 303


def test_a_session_ends_with_its_logout_whoever_kept_the_cookie(browser: TestClient) -> None:
    kept = browser.cookies[COOKIE]
    answer = browser.post("/logout", data={"csrf": csrf_of(browser.get("/"))})
    assert answer.headers["location"] == "/login"
    assert browser.get("/").status_code == 303
    browser.cookies.clear()
    browser.cookies.set(COOKIE, kept)
    assert browser.get("/").status_code == 303


def test_a_cookie_is_good_only_as_it_was_written_and_for_its_time() -> None:
    now = [1000.0]
    sessions = Sessions("key", hours=1, now=lambda: now[0])
    session = sessions.begin(7, 2, Role.ANNOTATOR)
    cookie = sessions.write(session)
    assert cookie.startswith("annotator.7.2.4600.")  # 1000 + 3600 = 4600
    assert sessions.read(cookie) == session
    assert sessions.read(sessions.write(sessions.anonymous()).replace("out.", "admin.", 1)) is None
    for ours, forged in (("annotator.", "admin."), (".7.", ".1."), (".2.", ".3."), (".4600.", ".9999.")):
        assert sessions.read(cookie.replace(ours, forged, 1)) is None
    assert all(sessions.read(wrong) is None for wrong in (None, "", ".", "admin.1.2", "é"))
    assert Sessions("other key", hours=1, now=lambda: now[0]).read(cookie) is None
    assert Sessions("key", hours=1, now=lambda: now[0]).read(cookie) == session, "a restart signs nobody out"
    now[0] = 4600
    assert sessions.read(cookie) is None


def post_routes(app: FastAPI) -> list[str]:
    """Every route that takes a form, with 1 in place of what its path names."""
    return [re.sub(r"\{[^}]*\}", "1", path) for path, methods in app.openapi()["paths"].items() if "post" in methods]


def test_every_form_needs_its_sessions_token(app: FastAPI, browser: TestClient) -> None:
    other = TestClient(app, follow_redirects=False)
    foreign = csrf_of(other.get("/login"))
    paths = post_routes(app)
    assert {"/login", "/logout", "/submit", "/jobs/1/cancel", "/people", "/people/1/remove"} <= set(paths)
    for path in paths:
        for form in ({}, {"csrf": ""}, {"csrf": foreign}, {"csrf": "é"}):
            assert browser.post(path, data=form | {"key": KEY}).status_code == 403, (path, form)
        assert browser.post(path, json={"csrf": csrf_of(browser.get("/"))}).status_code == 422


def test_a_browser_is_told_to_run_our_scripts_alone(browser: TestClient) -> None:
    pages = [browser.get(path) for path in ("/", "/submit", "/playground", "/nothing", "/static/console.js")]
    for answer in [*pages, TestClient(browser.app, follow_redirects=False).get("/")]:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    for answer in pages[:4]:
        assert answer.headers["cache-control"] == "no-store"
        assert inline_code(answer) == []


def inline_code(answer: httpx.Response) -> list[str]:
    return [sign for sign in ("<style", " style=", "<script>", " onclick", " onload") if sign in answer.text]


def test_a_console_without_a_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="the console has no login without a key"):
        ConsoleSettings(trainer_url=NOWHERE, policy_url=NOWHERE, reward_url=NOWHERE)
