"""How the console writes values down: times, lines, JSON, links to what the reader may open."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Model
from django.urls import reverse
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.timesince import timesince, timeuntil

from apps.accounts.models import User
from apps.core import clock

NOTHING = mark_safe('<span class="console-quiet">—</span>')


@dataclass(frozen=True)
class Panel:
    """A titled list of facts. A fact without a value isn't shown."""

    title: str
    facts: list[tuple[str, Any]]

    def shown(self) -> list[tuple[str, SafeString]]:
        """Label and rendered value of each fact that has one."""
        return [(label, shown(value)) for label, value in self.facts if value not in (None, "", [], ())]


def shown(value: Any) -> SafeString:
    """A value as HTML: lines stay lines, a list has a line for each entry, a dict is JSON, a time is readable."""
    match value:
        case None | "":
            return NOTHING
        case bool():
            return conditional_escape("yes" if value else "no")
        case datetime():
            return when(value)
        case dict():
            return format_html('<pre class="console-words">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False))
        case list() | tuple():
            return lines(value)
        case str() if not hasattr(value, "__html__"):
            return format_html_join(mark_safe("<br>"), "{}", ((line,) for line in value.splitlines()))
    return conditional_escape(value)


def lines(entries: Iterable[Any]) -> SafeString:
    """Each entry on a line of its own."""
    return format_html_join(mark_safe("<br>"), "{}", ((shown(entry),) for entry in entries))


def when(moment: datetime | None, *, now: datetime | None = None) -> SafeString:
    """How long ago, or in how long; the exact time on hover and for machines."""
    if moment is None:
        return NOTHING
    now = now or clock.now()
    if abs(now - moment) < timedelta(minutes=1):
        words = "just now" if moment <= now else "in less than a minute"
    elif moment <= now:
        words = f"{timesince(moment, now, depth=1)} ago"
    else:
        words = f"in {timeuntil(moment, now, depth=1)}"
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>', moment.isoformat(), f"{moment:%Y-%m-%d %H:%M:%S}", words
    )


def page_of(target: Model) -> str:
    """The address of an object's page."""
    name = f"admin:{target._meta.app_label}_{target._meta.model_name}_change"
    return reverse(name, args=[target.pk])


def link(reader: User, target: Model | None, text: str = "") -> SafeString:
    """The object by name, as a link when the reader may open its kind of page."""
    if target is None:
        return NOTHING
    text = text or str(target)
    if not reader.has_perm(f"{target._meta.app_label}.view_{target._meta.model_name}"):
        return conditional_escape(text)
    return format_html('<a class="console-link" href="{}">{}</a>', page_of(target), text)


MIB, GIB = 2**20, 2**30


def size(nbytes: int) -> str:
    """Bytes in whole mebibytes, rounded up, or in gibibytes: exact ones would tell how many rows there are."""
    return f"{nbytes / GIB:.1f} GiB" if nbytes >= 10 * GIB else f"{-(-nbytes // MIB):,} MiB"


def times(shape: Iterable[int]) -> str:
    """A shape in words: "84 × 2"; "one number" for a scalar."""
    return " × ".join(str(extent) for extent in shape) or "one number"


def column(declared: dict[str, Any]) -> str:
    """What a column declares, in a line."""
    text = f"{declared['name']}: {declared['kind']}"
    if declared.get("low") is not None and declared.get("high") is not None:
        text += f", {declared['low']:g} to {declared['high']:g}"
    if declared.get("categories"):
        text += f", one of {', '.join(str(each) for each in declared['categories'])}"
    return text
