"""An HTML page as tests look at it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, their attributes, the text and every table row's cells, and checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += " ".join(data.split()) + " "
            if self.rows and {"th", "td"} & set(self._open):
                self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])

    def count(self, tag: str, name: str = "") -> int:
        return sum(
            t == tag and name in (attrs.get("class") or "").split() if name else t == tag for t, attrs in self.tags
        )

    def row(self, *start: str) -> list[str]:
        """The only row whose first cells are these: the cells after them."""
        found = [cells[len(start) :] for cells in self.rows if cells[: len(start)] == list(start)]
        assert len(found) == 1, f"{len(found)} rows begin with {start}: {self.rows}"
        return found[0]


def asks_for_nothing(page: Page, html: str) -> bool:
    """Whether the page loads nothing and runs nothing: all it needs is in it."""
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image", "use"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name in ("src", "xlink:href", "srcset", "action")]
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html
    assert "@import" not in html
    return True
