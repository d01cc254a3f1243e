"""Texts in normal form: the standard's, and never in a time that grows faster than the text."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts import names
from apps.network import messages
from apps.tags import normal
from gridclient.wire.normal_form import nfc
from gridclient.wire.visible import visible

MARKS = ["\u0301", "\u0316", "\u0344", "\u05b0", "\u302a", "\u1e08", "e", "가", "\u1112\u1161\u11ab", "ß"]


@given(st.text(st.sampled_from([*"".join(MARKS)])) | st.text())
def test_a_text_that_anybody_writes_is_what_the_standard_says(text: str) -> None:
    assert nfc(text) == unicodedata.normalize("NFC", text) or len(text) > 10


@given(st.lists(st.sampled_from(MARKS).map(lambda mark: mark * 29), max_size=8).map("".join))
def test_a_normal_form_has_itself_as_its_normal_form(text: str) -> None:
    found = nfc(text)
    assert nfc(found) == found
    assert unicodedata.normalize("NFC", found) == found
    assert found.replace("\u034f", "") == nfc(text.replace("\u034f", "")).replace("\u034f", "")


@pytest.mark.parametrize(
    "read", [nfc, names.normal, normal.fold, lambda text: normal.wanted([text]), messages.clean, visible]
)
@pytest.mark.parametrize("marks", ["\u0301" * 10**5 + "\u0316" * 10**5, "\u0301\u0316" * 10**5, "\u0344" * 10**5])
def test_piled_up_marks_keep_nobody_waiting(read: object, marks: str) -> None:
    """In one piece they would be sorted for 40 seconds, and a sign-in may have a megabyte of them."""
    begin = time.process_time()
    read("a" + marks)  # type: ignore[operator]
    assert time.process_time() - begin < 10
