"""A console to look at, and a browser's visits to it; one ends with a failure when its page complained."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Browser, ConsoleMessage, Page, StorageState, expect

WIDE, NARROW = 1280, 390
"""Pixels: a laptop, a phone."""
HEIGHT = 844


@dataclass(frozen=True)
class Site:
    """A running console, and what there is to look at.

    Attributes:
        url: of the console.
        key: to log in with.
        reward_model: one that is served, `job@version`.
        job: a PPO job that has succeeded.
        adapter: what it learned, `job@version`.
    """

    url: str
    key: str
    reward_model: str
    job: str
    adapter: str


@dataclass(frozen=True)
class Visits:
    """Opens pages. `login`: cookies of a signed-in visitor; None: nobody is signed in."""

    browser: Browser
    url: str
    login: StorageState | None = None

    @contextmanager
    def open(
        self, *, width: int = WIDE, javascript: bool = True, expected: Collection[str] = (), signed_in: bool = True
    ) -> Iterator[Page]:
        """A page of a browser of its own.

        Args:
            width: of its window, pixels.
            javascript: whether it runs any.
            expected: what the console's complaints may contain, such as the status of an error page.
            signed_in: with the cookies of `login`.
        """
        complaints: list[str] = []

        def listen(message: ConsoleMessage) -> None:
            # Chromium tells what the Content-Security-Policy refused as an error, too.
            if message.type in ("error", "warning") and not any(each in message.text for each in expected):
                complaints.append(f"{message.type} at {message.location['url']}: {message.text}")

        with self.browser.new_context(
            base_url=self.url,
            viewport={"width": width, "height": HEIGHT},
            java_script_enabled=javascript,
            storage_state=self.login if signed_in else None,
        ) as context:
            page = context.new_page()
            page.on("console", listen)
            page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
            yield page
        # When the page is closed there are no more to come.
        assert not complaints, "\n".join(complaints)


def log_in(page: Page, key: str, ends_at: str = "Jobs") -> None:
    """By the form. Args: ends_at, the heading of the page that whoever has this key begins with."""
    page.goto("/login")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name=ends_at, level=1)).to_be_visible()


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until the element with this id, `name`, has the focus; each stop must show that it has it."""
    # A page that the last key led to may have no style yet.
    page.wait_for_load_state()
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.id, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0, e.outerHTML.slice(0, 100)]; }"
        )
        assert focused[1], f"the focus cannot be seen on {focused[2]}"
        if focused[0] == name:
            return
    raise AssertionError(f"80 times Tab do not lead to #{name}")
