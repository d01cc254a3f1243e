"""Attack 22: words that are markup. What a user would lose: the console, to a script in a name that somebody chose.

Notebooks are held to the same in tests/sdk/test_reprs.py, and formulas in tests/sdk/test_cli.py.
"""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, models, transaction
from django.test import Client, override_settings

from apps.audit import triggers
from apps.audit.models import AuditText
from apps.datarequests.models import DataRequest
from apps.datasets.models import Dataset
from apps.network.models import Announcement
from tests.factories.people import People
from tests.unit.test_console_matrix import ON_A_NETWORK, address, first_act, house, pages

pytestmark = pytest.mark.django_db
__all__ = ["house"]

MARK = "zxq7"
"""In every hostile word, and in no page by itself."""
WORDS = [
    "<script>alert('{0}')</script>",
    "<img src=x onerror=alert('{0}')>",
    "'\"><svg/onload=alert('{0}')>",
    "</title></textarea></select><script>{0}</script>",
    "\"onmouseover=\"alert('{0}')",
    "javascript:alert('{0}')//",
    "<a href=javascript:{0}>",
    "{{{{ {0} }}}}{{% load {0} %}}",
    "<!--{0}-->",
    "</script><iframe src=//{0}>",
]


class Elements(HTMLParser):
    """The elements and attributes of a page in which the mark is anything but text or a value."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.shown = 0
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside.append(tag)
        for name, value in attributes:
            if MARK in name or (value and MARK in value and (name.startswith("on") or _leads(name, value))):
                self.wrong.append(f"<{tag} {name}={value!r}>")
        if MARK in tag:
            self.wrong.append(f"<{tag}>")

    def handle_data(self, data: str) -> None:
        self.shown += MARK in data
        if MARK in data and self._inside and self._inside[-1] in ("script", "style"):
            self.wrong.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_comment(self, data: str) -> None:
        if MARK in data:
            self.wrong.append(f"<!--{data}-->")


def _leads(name: str, value: str) -> bool:
    return name in ("href", "src", "action", "formaction") and not re.match(r"(/|\?|#|https?://)", value.strip())


def _texts(model: type[models.Model]) -> list[str]:
    """Columns of free text. What a check of the database or a key holds to its form stays as it is."""
    kept = {"id", "slug", "visibility", "state", "kind", "right", "verb", "prefix", "dtype", "label"}
    found = [field for field in model._meta.fields if isinstance(field, (models.CharField, models.TextField))]
    return [
        field.name
        for field in found
        if field.name not in kept and not (field.primary_key or field.choices or "digest" in field.name)
        and not any(word in field.name for word in ("hash", "key", "sha256", "password", "signature", "fingerprint"))
    ]  # fmt: skip


def _poison(source: random.Random) -> int:
    """Every free text of every row becomes hostile, past all checks: a page may rely on none. How many were changed."""
    triggers.GUARD.remove(connection)
    changed = 0
    for model in apps.get_models():
        if not model.__module__.startswith("apps.") or model is AuditText:
            continue
        for row in model._default_manager.all():
            for name in _texts(model):
                field = model._meta.get_field(name)
                word = source.choice(WORDS).format(f"{MARK}{changed}")
                limit = getattr(field, "max_length", None)
                # What a constraint of the database refuses never gets to a page.
                with suppress(DatabaseError), transaction.atomic():
                    changed += model._default_manager.filter(pk=row.pk).update(**{name: word[:limit]})
    word = WORDS[0].format(MARK)
    AuditText.objects.update(body=json.dumps({"reason": word, word: [word]}))
    Announcement.objects.update(metadata={**Announcement.objects.get().metadata, "name": word, "description": word})
    return changed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("role", ["node", "network"])
def test_hostile_words_are_only_text_on_every_page_of_the_console(
    people: People, house: dict[str, str], role: str, seed: int
) -> None:
    assert _poison(random.Random(seed)) > 30
    client, shown = Client(), 0
    client.force_login(people.administrator)
    with override_settings(GRID_ROLE=role):
        for name, pattern in pages():
            if name in ("login", "logout", "catch-all") or (role == "network" and name not in ON_A_NETWORK):
                continue
            acts = {first_act(name) if name.endswith("_act") else "none"}
            for act in acts:
                where = address(name, pattern, house, act)
                answer: Any = client.get(where + f"?q=<script>{MARK}</script>" if name.endswith("list") else where)
                again: Any = client.get(where)
                for page in (answer, again):
                    if page.status_code == 200 and page["Content-Type"].startswith("text/html"):
                        elements = Elements()
                        elements.feed(page.content.decode())
                        assert not elements.wrong, (name, elements.wrong)
                        shown += elements.shown
    assert shown > (20 if role == "node" else 3)
    assert DataRequest.objects.exists() and Dataset.objects.exists()
