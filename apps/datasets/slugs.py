"""Names of datasets in addresses."""

from __future__ import annotations

from collections.abc import Iterable

from django.utils.text import slugify

from apps.datasets.assets import MAX_NAME
from apps.datasets.models import Dataset

MAX_SLUG = 70
FIRST_WORDS = 6
NAMELESS = "dataset"


def free_slug(*, name: str, description: str, tags: Iterable[str]) -> tuple[str, str]:
    """The name and slug of a new dataset: from the name, else the description's first six words, else the tags.

    A slug that is taken gets "-2", "-3", ... Call it with the lock that publications hold.
    """
    words = " ".join(description.split()[:FIRST_WORDS])
    texts = [text for text in (name.strip(), words, " ".join(tag.strip().lstrip("#") for tag in tags)) if text]
    shown = "".join(c for c in texts[0] if c.isprintable()) if texts else ""
    # A text may hold no letter that an address can have; then the next one names it.
    wanted = next((slug for text in texts if (slug := slugify(text)[:MAX_SLUG].strip("-_"))), NAMELESS)
    taken = set(Dataset.objects.filter(slug__startswith=wanted).values_list("slug", flat=True))
    slug, number = wanted, 1
    while slug in taken:
        number += 1
        slug = f"{wanted}-{number}"
    return shown[:MAX_NAME].strip() or slug, slug
