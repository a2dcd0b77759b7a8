"""Renders a report's template to one HTML page that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rlhf.evaluation.formats import REPEATED_WORDS, show_count, show_number, show_points, show_share

_HERE = Path(__file__).parent
_templates = Environment(
    loader=FileSystemLoader([_HERE, _HERE / "job_report"]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"figure": show_number, "share": show_share, "points": show_points}
_templates.filters |= {"count": show_count}
_templates.globals["repeated_words"] = REPEATED_WORDS


def render_page(template: str, view: Mapping[str, Any]) -> str:
    """The page. Args: template, its file beside this module or in job_report; view, what it shows.

    Every text of the view is escaped, and the page's content policy forbids scripts and requests.
    """
    return _templates.get_template(template).render(view)


def write_page(page: str, path: Path) -> None:
    """Writes a page; its folder is made, and a reader never sees half of it.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
