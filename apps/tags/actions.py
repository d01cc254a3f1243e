"""Keep tags."""

from __future__ import annotations

from collections.abc import Iterable

from apps.tags.models import Tag
from apps.tags.normal import normal
from gridclient.wire.normal_form import nfc


def tags_of(texts: Iterable[str]) -> list[Tag]:
    """The rows of these tags in their order, made where new; of two with one normal form the first stays.

    Raises InvalidInputError for a text that is no tag.
    """
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(normal(text), nfc(text.strip()))
    return [Tag.objects.get_or_create(text=text, defaults={"normal": form})[0] for form, text in first.items()]
