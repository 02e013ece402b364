"""The common style of all HTML pages, without scripts, server or network."""

from __future__ import annotations

from dominate import document, tags
from dominate.util import raw

STYLE = """
body { font: 15px/1.5 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; color: #1f2730; background: #f3f5f7; margin: 0 }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px }
h1 { font-size: 27px; margin: 0 } h2 { font-size: 19px; margin: 0 0 4px } p.sub { color: #64707d; margin: 2px 0 14px }
section { background: #fff; border: 1px solid #e0e5ea; border-radius: 10px; padding: 18px 22px; margin-top: 18px }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 16px }
.tile { background: #fff; border: 1px solid #e0e5ea; border-radius: 10px; padding: 10px 18px; min-width: 110px }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums }
.tile span { color: #64707d; font-size: 13px }
table { border-collapse: collapse; font-size: 13.5px } td { padding: 3px 26px 3px 0; vertical-align: top }
td:first-child { color: #64707d; white-space: nowrap } td { overflow-wrap: anywhere }
.options td:first-child { width: 140px }
.options { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 0 28px; align-items: start }
.samples { display: flex; flex-wrap: wrap; justify-content: center; gap: 14px; padding: 12px; border-radius: 8px }
.samples { background: #0d1013 }
.band { display: grid; gap: 6px } figure { margin: 0; min-width: 0 } figure img { width: 100%; display: block }
figcaption { color: #d5dde5; font-size: 13px; text-align: center; padding-bottom: 5px }
details { margin-top: 12px } summary { cursor: pointer; color: #2c6ba5 } details details { margin-left: 16px }
.curves { width: 100%; display: block; margin-top: 14px } footer { color: #64707d; font-size: 13px; margin-top: 22px }
"""


def new_page(title: str, extra_style: str = "") -> document:
    """An empty page; `extra_style` is additional CSS."""
    page = document(title=title)
    with page.head:
        tags.meta(charset="utf-8")
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(raw(STYLE + extra_style))
    return page
