"""One meaning of a search on both databases: an owner's dataset is found by exactly the terms that it has."""

from __future__ import annotations

from itertools import chain
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.tags import index, postings
from apps.tags.models import Entry, Posting, Token
from apps.tags.normal import tokens, wanted
from gridclient.wire.errors import InvalidInputError
from tests.factories.postgres import database, postgres

__all__ = ["database", "postgres"]  # fixtures


def newest(*terms: str, kind: str = "dataset", before: int | None = None) -> list[UUID]:
    """What matches, newest first."""
    return [match.key for match in chain(*index.matching(kind, terms, before=before))]


def found(*terms: str, kind: str = "dataset") -> set[UUID]:
    return set(newest(*terms, kind=kind))


def put(
    name: str = "", description: str = "", tags: tuple[str, ...] = (), kind: str = "dataset", key: UUID | None = None
) -> UUID:
    key = key or uuid4()
    index.put(kind, [index.document(key, name=name, description=description, tags=tags)])
    return key


def test_a_sign_means_tags_only_and_every_term_must_match(database: str) -> None:
    births = put("births", "Births of February, in kilogram", ("#February", "#birth-records"))
    visits = put("visits", "Visits in february", ("#visits",))
    assert found("#february") == {births} and found("FEBRUARY") == {births, visits}
    assert found("#February", "#birth-records") == {births} and found("february", "#visits") == {visits}
    assert found("kilogram", "visits") == set() and found("febru") == set() and found("birth") == set()
    assert found() == found(" ") == {births, visits} and found("birth-records") == {births}


def test_new_words_replace_the_old_ones_and_a_removed_document_is_gone(database: str) -> None:
    key = put("old", tags=("#a",))
    put("new", tags=("#b",), key=key)
    assert found("old") == found("#a") == set() and found("new", "#b") == {key}
    index.remove("dataset", [key])
    index.remove("dataset", [key])
    assert found("new") == found() == set()
    assert not Posting.objects.exists() and not Token.objects.exists() and not Entry.objects.exists()


def test_kinds_are_apart(database: str) -> None:
    dataset, announcement = put("births"), put("births", kind="announcement")
    assert found("births") == {dataset} and found("births", kind="announcement") == {announcement}


@pytest.mark.parametrize(
    "term",
    [
        '"', "births OR visits", 'births" OR "x', "NOT births", "bir*", "tokens:births", "{births,visits}", "^births",
        "'; DROP TABLE tags_entry; --", "births) OR 1=1", "%s", "\\", "NEAR(births visits)", "births\0visits",
    ],
)  # fmt: skip
def test_no_term_means_anything_to_the_query_language(database: str, term: str) -> None:
    births, visits = put("births"), put("visits")
    assert found(term) == set() and found("births") == {births} and found() == {births, visits}


def test_hostile_words_are_only_words(database: str) -> None:
    key = put('x" OR "y', "'; DROP TABLE tags_tokens; --", ("#a",))
    assert found("or", "drop", "y") == {key} and found("#y") == set()


def test_a_word_of_any_length_is_indexed_and_found(database: str) -> None:
    long = "x" * 9_000
    key = put("", long)
    assert found(long) == {key} and found(long + "x") == set()


def test_a_term_that_no_tag_can_match_is_refused(database: str) -> None:
    with pytest.raises(InvalidInputError):
        found("#")


def test_newest_come_first_and_a_change_moves_nothing(database: str) -> None:
    first, second, third = put("births"), put("births", "late"), put("births")
    put("births", "corrected", key=first)
    assert newest("births") == newest() == [third, second, first]
    number = index.number_of("dataset", third)
    assert newest("births", before=number) == [second, first] and newest("late", before=number) == [second]
    assert newest("births", before=10**30) == [third, second, first] and newest("births", before=0) == []


def test_a_hidden_document_is_found_by_nobody_until_it_is_shown_where_it_was(database: str) -> None:
    first, second = put("births", tags=("#a",)), put("births")
    index.hide("dataset", [first])
    index.hide("dataset", [first])
    assert newest("births") == newest() == [second] and found("#a") == set()
    assert index.popular("dataset", "t:", limit=5) == []
    index.show("dataset", [first])
    index.show("dataset", [first])
    assert newest("births") == newest() == [second, first]
    index.hide("dataset", [first])
    put("births", "anew", key=first)
    assert newest("births", "anew") == [first]
    index.hide("dataset", [first])
    index.remove("dataset", [first])
    assert newest() == [second]


def test_batches_and_blocks_are_no_seams(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "BLOCK", 2)  # blocks of four documents
    keys = [put("births", "even" if number % 2 == 0 else "odd") for number in range(40)]
    assert newest("births") == keys[::-1] and newest("births", "even") == keys[-2::-2]
    assert newest("even", "odd") == []
    assert [len(batch) for batch in index.matching("dataset", ["even"], first=3)] == [3, 12, 5]
    index.remove("dataset", keys[10:30])
    assert newest("births") == keys[:29:-1] + keys[9::-1]


def test_completions_are_the_most_frequent_first(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for tags in (("#feb", "#february"), ("#february",), ("#february", "#fever"), ("#march",)):
        put(tags=tags)
    assert index.popular("dataset", "t:f", limit=2) == [("t:february", 3), ("t:feb", 1)]
    assert index.popular("dataset", "t:feb", limit=9) == [("t:february", 3), ("t:feb", 1)]
    assert index.popular("dataset", "t:z", limit=9) == index.popular("announcement", "t:", limit=9) == []
    monkeypatch.setattr(index, "MOST_COMPLETIONS", 2)
    monkeypatch.setattr(index, "MOST_FREQUENT", 3)
    for number in range(5):
        put(tags=(f"#aa{number}",))
    assert index.popular("dataset", "t:", limit=1) == [("t:february", 3)]


WORDS = st.sampled_from(
    ["a", "B", "b", "Straße", "STRASSE", "é", "e\u0301", "x-y", "y", "co.", "(a)", "#a", '"', "l'eau", "ﬁ", "FI"]
)
TAGS = st.sampled_from(["#a", "B", "#x-y", "#straße", "#é", "y", "#co.x", "#fi"])
# What happens to five datasets, one after the other: words and tags, hidden, shown, or removed.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.one_of(
            st.tuples(st.lists(WORDS, max_size=3), st.lists(WORDS, max_size=4), st.lists(TAGS, max_size=2)),
            st.sampled_from(["hide", "show", "remove"]),
        ),
    ),
    max_size=12,
)
TERMS = st.lists(st.one_of(WORDS, TAGS), max_size=3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(STEPS, TERMS)
def test_the_index_finds_what_a_plain_comparison_finds(
    database: str, steps: list[tuple[int, str | tuple[list[str], list[str], list[str]]]], terms: list[str]
) -> None:
    for model in (Posting, Token, Entry):
        model.objects.all().delete()
    kept: dict[UUID, tuple[set[str], bool]] = {}  # in the order of their numbers; whether hidden
    for name, step in steps:
        key = UUID(int=name)
        match step:
            case "remove":
                index.remove("dataset", [key])
                kept.pop(key, None)
            case "hide" | "show":
                (index.hide if step == "hide" else index.show)("dataset", [key])
                if key in kept:
                    kept[key] = (kept[key][0], step == "hide")
            case (titles, description, tags):
                put(" ".join(titles), " ".join(description), tuple(tags), key=key)
                kept[key] = (set(tokens(" ".join(titles), " ".join(description), tags)), False)
    shown = {key: having for key, (having, hidden) in kept.items() if not hidden}
    assert newest(*terms) == [key for key in reversed(shown) if set(wanted(terms)) <= shown[key]]
    for prefix in ("t:", "w:s"):
        counts = {word: sum(word in having for having in shown.values()) for word in set().union(*shown.values())}
        expected = {word: count for word, count in counts.items() if word.startswith(prefix)}
        assert dict(index.popular("dataset", prefix, limit=99)) == expected
