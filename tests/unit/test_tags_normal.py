"""The normal form of tags and words: what an owner types and what a scientist types must meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.tags.normal import MAX_TAG, MAX_TERMS, fold, normal, tokens, wanted
from gridclient.wire.errors import InvalidInputError


@pytest.mark.parametrize("typed", ["#February", "february", " FEBRUARY ", "#fEbruary"])
def test_case_and_sign_do_not_separate_tags(typed: str) -> None:
    assert normal(typed) == "#february"


def test_composed_and_decomposed_letters_meet() -> None:
    assert normal("#caf\u00e9") == normal("#cafe\u0301") and normal("#STRASSE") == normal("#stra\u00dfe")
    assert normal("#हिन्दी") == "#हिन्दी"


@pytest.mark.parametrize(
    "typed",
    ["", "#", "##a", "two words", "#-a", "#a#b", "<b>", "#a\u202eb", "#a\u200bb", "a" * (MAX_TAG + 1), "#a\0", '"'],
)
def test_what_is_no_tag_is_refused_without_repeating_it(typed: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        normal(typed)
    assert typed not in ("", "#") or "#" in caught.value.message
    assert len(typed) < 3 or typed not in caught.value.message


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text())
def test_the_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    try:
        once = normal(text)
    except InvalidInputError:
        return
    assert normal(once) == once and normal(once[1:]) == once and normal(once.upper()) == normal(once.upper().lower())


@given(st.lists(st.text(), max_size=3), st.text())
def test_no_text_breaks_the_making_of_tokens(terms: list[str], description: str) -> None:
    for token in tokens("", description, []):
        assert token[:2] == "w:" and token[2:] == fold(token[2:]) and not any(c.isspace() for c in token)
    try:
        assert all(token[:2] in ("t:", "w:") for token in wanted(terms))
    except InvalidInputError:
        assert any("#" in term for term in terms) or sum(len(term.split()) for term in terms) > MAX_TERMS


def test_a_document_is_found_by_tags_whole_words_and_their_parts() -> None:
    found = tokens("Births 2026", "Height, in (centimetre); mother's  co-author!", ["#Birth-Records"])
    assert {"t:birth-records", "w:birth-records", "w:births", "w:2026", "w:height", "w:centimetre"} <= set(found)
    assert {"w:mother's", "w:mother", "w:co-author", "w:co", "w:author"} <= set(found)
    assert "w:birth" not in found and "t:births" not in found and found == sorted(set(found))


def test_a_term_asks_for_a_tag_or_a_word() -> None:
    assert wanted(["#Births", "Height,", "two words", " "]) == ["t:births", "w:height", "w:two", "w:words"]
    with pytest.raises(InvalidInputError):
        wanted(["#"])
    with pytest.raises(InvalidInputError):
        wanted(["a"] * (MAX_TERMS + 1))
