"""The console through the front, with each of its databases; of the stack only what its pages need is started."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.containers.conftest import REWARD_MODEL, started
from tests.containers.stack import Stack, submit

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

FILES = {"sqlite": "docker-compose.yml", "postgresql": "docker-compose.yml:deploy/compose/postgres.yml"}
GUESSES = 10
"""The default of RLHF_LOGIN_GUESSES_PER_ADDRESS."""


@pytest.fixture(scope="module", params=FILES)
def stack(engine: None, request: pytest.FixtureRequest) -> Iterator[Stack]:
    with started("console", {"COMPOSE_FILE": FILES[request.param]}, "trainer-api", "console") as stack:
        start_front(stack)
        yield stack


def start_front(stack: Stack) -> None:
    """Not with --wait: the policy and the reward service, without which it is not healthy, are no part of this."""
    stack.compose("up", "--build", "--no-deps", "--detach", "front", timeout=600)
    deadline = time.monotonic() + 60
    while not answers(stack):
        assert time.monotonic() < deadline, stack.logs("front")[-20:] + stack.logs("console")[-20:]
        time.sleep(0.5)


def answers(stack: Stack) -> bool:
    try:
        return all(httpx.get(f"{stack.url(door)}/ready").status_code == 200 for door in ("console", "trainer"))
    except httpx.TransportError:  # the front itself is not there yet
        return False


class Patience(httpx.HTTPTransport):
    """Asks again while the front knows no console: it looks for the name each second, and so sees a restart late."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = super().handle_request(request)
            except httpx.RemoteProtocolError:
                # The front closes a kept connection when the console behind it is gone; browsers ask again, too.
                if request.method != "GET" or time.monotonic() > deadline:
                    raise
            else:
                if answer.status_code not in (502, 503) or time.monotonic() > deadline:
                    return answer
                answer.close()
            time.sleep(0.5)


def browser_at(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=stack.url("console"), transport=Patience(), timeout=120)


def csrf_of(page: httpx.Response) -> str:
    return re.search(r'name="csrf" value="([^"]+)"', page.text)[1]


def log_in(browser: httpx.Client, key: str, **headers: str) -> httpx.Response:
    csrf = csrf_of(browser.get("/login", headers=headers))
    return browser.post("/login", data={"csrf": csrf, "key": key}, headers=headers)


def test_people_and_logins_outlive_a_restart(stack: Stack) -> None:
    key = stack.secret("api_key")
    with stack.client("trainer", key=key) as trainer:
        job = submit(trainer, REWARD_MODEL)
    with browser_at(stack) as admin, browser_at(stack) as anna:
        assert admin.get("/").headers["location"] == "/login"
        assert log_in(admin, key).headers["location"] == "/"
        assert job in admin.get("/").text
        page = admin.post("/people", data={"csrf": csrf_of(admin.get("/people")), "name": "Anna", "role": "annotator"})
        annas_key = re.search(r'<code class="wrap">([^<]+)</code>', page.text)[1]
        assert log_in(anna, annas_key).headers["location"] == "/"

        stack.compose("restart", "console")
        assert "Anna" in admin.get("/people").text
        assert (anna.get("/people").status_code, anna.get("/").headers["location"]) == (403, "/annotate")
        # The key as well, not the cookie alone.
        with browser_at(stack) as again:
            assert log_in(again, annas_key).headers["location"] == "/"


def test_a_crash_of_the_database_loses_nothing(stack: Stack) -> None:
    crashing = "console" if stack.settings["COMPOSE_FILE"] == FILES["sqlite"] else "console-database"
    with browser_at(stack) as admin:
        log_in(admin, stack.secret("api_key"))
        admin.post("/people", data={"csrf": csrf_of(admin.get("/people")), "name": "Berta", "role": "annotator"})
        stack.crash(crashing)
        assert "Berta" in admin.get("/people").text


def test_the_database_is_open_to_the_console_alone(stack: Stack) -> None:
    if stack.settings["COMPOSE_FILE"] == FILES["sqlite"]:
        look = stack.execute("console", "stat", "-c", "%a %u", "/data", "/data/console.sqlite3")
        assert look.stdout.split("\n")[:2] == ["700 10001", "600 10001"]
        return
    reach = "import socket; socket.create_connection(('console-database', 5432), timeout=3)"
    assert stack.execute("console", "python", "-c", reach, check=False).returncode == 0
    assert stack.execute("trainer-api", "python", "-c", reach, check=False).returncode != 0
    password = stack.secret("console_database_password")
    for service in ("console", "console-database"):
        assert password not in json.dumps(stack.inspect(service))
        assert not [line for line in stack.logs(service) if password in line]
    # No password, a wrong one, and the superuser are refused over the network.
    ask = "psql", "--no-password", "--host=127.0.0.1", "--command=SELECT 1"
    for user, given in (("console", ""), ("console", "wrong"), ("postgres", password)):
        options = ("env", f"PGPASSWORD={given}", *ask, f"--username={user}", "--dbname=console")
        assert stack.execute("console-database", *options, check=False).returncode != 0, user
    right = ("env", f"PGPASSWORD={password}", *ask, "--username=console", "--dbname=console")
    assert stack.execute("console-database", *right).returncode == 0
    role = ("psql", "--host=/tmp", "-Atc", "SELECT rolsuper FROM pg_roles WHERE rolname = 'console'")
    assert stack.execute("console-database", *role).stdout.strip() == "f"


def test_wrong_keys_count_for_who_sent_them_whatever_the_request_says(stack: Stack) -> None:
    with browser_at(stack) as guesser:
        for number in range(GUESSES):
            answer = log_in(
                guesser, "wrong", **{"X-Forwarded-For": f"203.0.113.{number}", "X-Forwarded-Proto": "https"}
            )
            assert answer.status_code == 401
            assert "secure" not in guesser.get("/login").headers["set-cookie"].lower()
        answer = log_in(guesser, "wrong", **{"X-Forwarded-For": "203.0.113.99"})
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (429, True)
    # Nobody gets past the front, whose word the console takes.
    reach = "import socket; socket.create_connection(('console', 8000), timeout=3)"
    assert stack.execute("trainer-api", "python", "-c", reach, check=False).returncode != 0
    seen = {json.loads(line).get("address") for line in stack.logs("console")} - {None}
    front = {network["IPAddress"] for network in stack.inspect("front")["NetworkSettings"]["Networks"].values()}
    assert len(seen) == 1
    assert not seen & front


def test_a_proxy_that_is_named_says_who_asks_and_how(stack: Stack) -> None:
    stack.environment["CONSOLE_PROXY"] = "0.0.0.0/0"
    start_front(stack)
    with browser_at(stack) as visitor:
        for number in range(GUESSES + 1):
            # The last is what the proxy saw; those before, the visitor wrote.
            headers = {"X-Forwarded-For": f"198.51.100.1, 203.0.113.{number}", "X-Forwarded-Proto": "https"}
            page = visitor.get("/login", headers=headers)
            assert "secure" in page.headers["set-cookie"].lower()
            cookie = f"{page.headers['set-cookie'].partition(';')[0]}"
            sent = {"csrf": csrf_of(page), "key": "wrong"}
            assert visitor.post("/login", data=sent, headers=headers | {"Cookie": cookie}).status_code == 401
