"""How objects look: one line of text, tables in a terminal, and cards and tables in a notebook.

What a node or a network says of itself and its datasets was typed by other people: every text is escaped, and what
would mislead (invisible, reordering and look-alike characters) is shown as what it is. The HTML has no script, no
style sheet and no colour of its own, so that it reads in dark and in light.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from gridclient.wire.visible import visible

WIDEST_CELL = 48
LONGEST_CELL = 300
_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"
_TABLE = "border-collapse:collapse;text-align:left"
_CELL = "text-align:left;vertical-align:top;padding:2px 10px 2px 0"


def plain(value: Any) -> str:
    """A value on one line, without anything that misleads: lists with commas, shapes with ×, nothing for None."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case tuple() if all(type(extent) is int for extent in value):
            return " × ".join(map(str, value))
        case list() | tuple():
            return ", ".join(map(plain, value))
        case Mapping():
            return ", ".join(f"{plain(key)}: {plain(item)}" for key, item in value.items())
    return visible(" ".join(str(value).split()))


def quoted(value: Any) -> str:
    """A value within a one-line `repr`: texts in quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    return f"'{plain(value)}'" if isinstance(value, str) else plain(str(value))


def lines(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table for a terminal; long cells are cut."""
    cells = [list(headers), *([cut(plain(value), WIDEST_CELL) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def cut(text: str, longest: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def text(value: Any, longest: int = LONGEST_CELL) -> str:
    """A value as HTML text."""
    return html.escape(cut(plain(value), longest))


def paragraphs(value: str) -> str:
    """A text of several lines as HTML text."""
    return "<br>".join(html.escape(visible(line.replace("\t", "    "))) for line in value.splitlines())


def link(url: str) -> str:
    """An address as HTML: to be followed only where it leads to a web page."""
    shown = text(url)
    try:
        followed = urlsplit(url).scheme in ("http", "https")
    except ValueError:
        followed = False
    if not followed:
        return shown
    return f'<a href="{html.escape(url)}" rel="noopener noreferrer" style="color:inherit">{shown}</a>'


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, note: str = "") -> str:
    """An HTML table; values are escaped here."""
    head = "".join(f'<th style="{_CELL};{_LINE}">{text(header)}</th>' for header in headers)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    under = f'<div style="opacity:.7">{text(note)}</div>' if note else ""
    return _framed(f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{under}')


def card(kind: str, name: str, facts: Mapping[str, str], *, below: str = "") -> str:
    """An object: what it is, its name and its facts. `facts` and `below` are HTML; what is empty is left out."""
    called = f" <b>{text(name)}</b>" if name else ""
    head = f'<div style="{_LINE}"><span style="opacity:.7">{text(kind)}</span>{called}</div>'
    rows = "".join(
        f'<tr><td style="{_CELL};opacity:.7">{text(label)}</td><td style="{_CELL}">{fact}</td></tr>'
        for label, fact in facts.items()
        if fact
    )
    return _framed(f'{head}<table style="{_TABLE}"><tbody>{rows}</tbody></table>{below}')


def _cell(value: Any) -> str:
    return f'<td style="{_CELL}">{text(value)}</td>'


def _framed(inner: str) -> str:
    # The class keeps formulas that somebody wrote into a description from being typeset.
    return f'<div class="tex2jax_ignore">{inner}</div>'
