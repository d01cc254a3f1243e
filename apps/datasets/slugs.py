"""Names of datasets in addresses."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterable
from secrets import token_bytes

from django.utils.text import slugify

from apps.datasets.assets import MAX_NAME
from apps.datasets.models import Dataset, Visibility
from gridclient.wire.normal_form import nfc

MAX_SLUG = 70
FIRST_WORDS = 6
NAMELESS = "dataset"


def free_slug(*, name: str, description: str, tags: Iterable[str], hidden: bool = False) -> tuple[str, str]:
    """The name and slug of a new dataset: from the name, else the description's first six words, else the tags.

    A slug that is taken gets "-2", "-3", ... A dataset that is `hidden` (only those with a grant see it) always gets
    random letters, and so does one that clashes with such a dataset. Call it with the lock that publications hold.
    """
    words = " ".join(description.split()[:FIRST_WORDS])
    texts = [text for text in (name.strip(), words, " ".join(tag.strip().lstrip("#") for tag in tags)) if text]
    shown = "".join(c for c in texts[0] if c.isprintable()) if texts else ""
    # A text may hold no letter that an address can have; then the next one names it.
    wanted = next((slug for text in texts if (slug := slugify(nfc(text))[:MAX_SLUG].strip("-_"))), NAMELESS)
    taken = dict(Dataset.objects.filter(slug__startswith=wanted).values_list("slug", "visibility"))
    slug, number = wanted, 1
    while not hidden and slug in taken and taken[slug] != Visibility.GRANTED:
        number += 1
        slug = f"{wanted}-{number}"
    # A number says that a dataset of this name exists. Were hidden ones numbered, publishing under a guessed name would
    # find them: so they never take the plain name, and what was hidden later is passed over without a count.
    if hidden or slug in taken:
        slug = f"{wanted}-{_letters()}"
    return shown[:MAX_NAME].strip() or slug, slug


def _letters() -> str:
    """Six letters of base32: a thousand million possibilities, so that no two datasets meet."""
    return b32encode(token_bytes(4)).decode().lower()[:6]
