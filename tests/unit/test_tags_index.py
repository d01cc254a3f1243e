"""One meaning of a search on both databases: an owner's dataset is found by exactly the terms that it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test.utils import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.tags import index
from apps.tags.models import Entry
from apps.tags.normal import tokens, wanted
from gridclient.wire.errors import InvalidInputError
from tests.factories.postgres import postgres as server

POSTGRES = "postgres"


class ToPostgres:
    """Sends the index to the real PostgreSQL of these tests."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return POSTGRES if model is Entry else None

    db_for_write = db_for_read


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """A real PostgreSQL with the tables of the index."""
    with server(tmp_path_factory.mktemp("postgres")) as settings_of_it, django_db_blocker.unblock():
        connections.databases[POSTGRES] = settings_of_it
        call_command("migrate", "tags", database=POSTGRES, verbosity=0)
        yield POSTGRES
        connections[POSTGRES].close()
        del connections[POSTGRES], connections.databases[POSTGRES]


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.django_db), POSTGRES])
def database(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[str]:
    """An empty index, on each database in turn."""
    if request.param == "sqlite":
        yield "default"
        return
    request.getfixturevalue("postgres")
    to_postgres = override_settings(DATABASE_ROUTERS=[ToPostgres()])
    with django_db_blocker.unblock(), to_postgres, transaction.atomic(using=POSTGRES):
        yield POSTGRES
        transaction.set_rollback(True, using=POSTGRES)


def found(*terms: str, kind: str = "dataset") -> set[UUID]:
    return set(index.matching(kind, terms))


def put(name: str = "", description: str = "", tags: tuple[str, ...] = (), kind: str = "dataset") -> UUID:
    key = uuid4()
    index.put(kind, key, name=name, description=description, tags=tags)
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
    index.put("dataset", key, name="new", description="", tags=["#b"])
    assert found("old") == found("#a") == set() and found("new", "#b") == {key}
    index.remove("dataset", key)
    index.remove("dataset", key)
    assert found("new") == found() == set()


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


def test_keys_can_be_used_in_a_filter(database: str) -> None:
    key = put("births")
    assert list(Entry.objects.filter(key=key.hex).values_list("kind", flat=True)) == ["dataset"]
    assert [type(each) for each in index.matching("dataset", ["births"])] == [UUID]


WORDS = st.sampled_from(
    ["a", "B", "b", "Straße", "STRASSE", "é", "e\u0301", "x-y", "y", "co.", "(a)", "#a", '"', "l'eau", "ﬁ", "FI"]
)
TAGS = st.sampled_from(["#a", "B", "#x-y", "#straße", "#é", "y", "#co.x", "#fi"])
DOCUMENTS = st.lists(
    st.tuples(st.lists(WORDS, max_size=3), st.lists(WORDS, max_size=4), st.lists(TAGS, max_size=2)), max_size=4
)
TERMS = st.lists(st.one_of(WORDS, TAGS), max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(DOCUMENTS, TERMS)
def test_the_index_finds_what_a_plain_comparison_finds(
    database: str, documents: list[tuple[list[str], list[str], list[str]]], terms: list[str]
) -> None:
    Entry.objects.all().delete()
    kept = {}
    for name, description, tags in documents:
        key = put(" ".join(name), " ".join(description), tuple(tags))
        kept[key] = set(tokens(" ".join(name), " ".join(description), tags))
    expected = {key for key, having in kept.items() if set(wanted(terms)) <= having}
    assert found(*terms) == expected
