"""The common style of all HTML pages, which need no server and no network; styles and scripts stand in the page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dominate import document, tags
from dominate.util import raw

from util.errors import printable

STYLE = Path(__file__).with_name("page.css")


def new_page(title: str, *styles: Path) -> document:
    """An empty page in the common style and those of the CSS files `styles`."""
    page = document(title=title)
    page.set_attribute("lang", "en")
    with page.head:
        tags.meta(charset="utf-8")
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(raw("\n".join(path.read_text(encoding="utf-8") for path in (STYLE, *styles))))
    return page


def script(path: Path) -> None:
    """A script of ours, written into the page: no file that could get lost, and no request."""
    tags.script(raw(path.read_text(encoding="utf-8")))


def script_data(name: str, content: Any) -> None:
    """Data for the scripts, as the JSON of an element with the id `name`."""
    tags.script(raw(json_in_script(content)), type="application/json", id=name)


def json_in_script(content: Any) -> str:
    """JSON in ASCII that may stand between script tags or in a script: no name in it can end or begin an element."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def link(path: str) -> str:
    """A relative address for a path below the page; any name works, also one that is not UTF-8."""
    return quote(os.fsencode(path))


def shown(name: str) -> str:
    """A name for the page and its scripts: what cannot be shown is escaped, as in everything else that is printed."""
    return printable(name)
