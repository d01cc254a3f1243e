"""Whose rows stand behind two answers: no few people may lie between them."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.compute import crowds
from apps.compute.crowds import DECLARED, WHOLE_ROW, Crowd, Crowds, compatible

K = 10
VALUES = np.random.default_rng(5).uniform(1, 5, (60, 2))


def answer(
    values: Any, *, dataset: str = "births", version: int = 1, who: Any = None, data: str = "", most: int = 1
) -> Crowds:
    """The sums of all columns of these rows; `who`: identifiers of people, or None where each row is one."""
    rows = np.asarray(values, dtype=np.float64)
    prints = {WHOLE_ROW: crowds.printed(crowds.row_hashes(rows))}
    for number, column in enumerate(rows.T):
        hashes = crowds.row_hashes(column[:, None])
        if crowds.telling(hashes):
            prints[str(number)] = crowds.printed(hashes)
    if who is None:
        people, namespace = crowds.people(np.arange(len(rows)), None), f"rows of {dataset}@{version}"
    else:
        names, codes = np.unique(who, return_inverse=True)
        hmacs = np.array([list(hmac.digest(b"k", str(name).encode(), "sha256")) for name in names], np.uint8)
        people, namespace = crowds.people(codes, hmacs), DECLARED
    digest = data or str(rows.tobytes())
    return crowds.decode(crowds.encode(Crowds(dataset, version, digest, namespace, most, [Crowd(people, prints)])))


def both(one: Crowds, other: Crowds, k: int = K) -> bool:
    """Which of two answers came first must not matter."""
    new, known = crowds.read(one), crowds.read(other)
    assert compatible(new, known, k) == compatible(known, new, k)
    return compatible(new, known, k)


def test_the_same_people_may_be_asked_about_again() -> None:
    assert both(answer(VALUES), answer(VALUES))
    assert both(answer(VALUES), answer(VALUES, dataset="copy"))
    assert both(answer(VALUES), answer(VALUES, version=2))


def test_a_version_without_one_person_is_not_answered_beside_the_whole() -> None:
    """Last month's sum minus this one would be that person."""
    who = np.arange(60)
    for gone in (1, 5, 9):
        assert not both(answer(VALUES, who=who), answer(VALUES[gone:], version=2, who=who[gone:]))
    assert both(answer(VALUES, who=who), answer(VALUES[10:], version=2, who=who[10:]))


@pytest.mark.parametrize("place", [{"dataset": "copy"}, {"version": 2}])
@pytest.mark.parametrize("others", [None, np.arange(1_001, 1_060)])
def test_the_same_data_under_other_identifiers_are_the_same_people(place: dict[str, Any], others: Any) -> None:
    """Published twice, with other edges: two cells of a histogram that differ in one person would give that one."""
    first = answer(VALUES, who=np.arange(60), data="same")
    assert not both(first, answer(VALUES[1:], who=others, data="same", **place))
    everybody = None if others is None else np.arange(1_000, 1_060)
    assert both(first, answer(VALUES, who=everybody, data="same", **place))


def test_another_version_of_people_without_identifiers_is_not_answered() -> None:
    """Who left and who came cannot be known, however different the values are."""
    assert not both(answer(VALUES), answer(VALUES * 1000 + 1, version=2))
    assert not both(answer(VALUES), answer(VALUES[1:], version=2))


@pytest.mark.parametrize("columns", [[0, 1], [0], [1], [1, 0]])
def test_an_overlapping_dataset_is_seen_without_identifiers(columns: list[int]) -> None:
    other = VALUES[1:][:, columns]
    assert not both(answer(VALUES), answer(other, dataset="other"))
    shuffled = np.random.default_rng(1).permutation(other)
    assert not both(answer(VALUES), answer(shuffled, dataset="other"))


def test_a_dataset_of_other_people_may_be_asked_about() -> None:
    others = np.random.default_rng(6).uniform(1, 5, (60, 2))
    assert both(answer(VALUES), answer(others, dataset="other"))
    assert both(answer(VALUES), answer(others, dataset="other", who=np.arange(60), most=10))
    rounded = [np.round(values, 1) for values in (VALUES, others)]
    assert both(answer(rounded[0]), answer(rounded[1], dataset="other"))


def test_a_corrected_value_is_not_the_difference_of_two_answers() -> None:
    who, corrected = np.arange(60), VALUES.copy()
    corrected[3, 0] = 4.0
    assert not both(answer(VALUES, who=who), answer(corrected, version=2, who=who))


def test_a_person_of_many_rows_is_one_person() -> None:
    """Ten rows differ, and they are all of one entity."""
    who = np.r_[np.arange(50), [99] * 10]
    assert not both(answer(VALUES, who=who, most=10), answer(VALUES[:50], dataset="other", who=who[:50], most=10))
    assert not both(answer(VALUES, who=who, most=10), answer(VALUES[:50], dataset="other", most=1))


@given(st.sets(st.integers(0, 60), max_size=40), st.sets(st.integers(0, 60), max_size=40), st.integers(2, 12))
def test_people_are_the_same_or_differ_in_k(ours: set[int], theirs: set[int], k: int) -> None:
    def of(who: set[int]) -> Crowds:
        rows = np.random.default_rng(sum(who)).uniform(0, 1, (len(who), 1))
        return answer(rows, who=np.array(sorted(who), dtype=np.int64).reshape(-1), data="same") if who else empty()

    def empty() -> Crowds:
        nobody = crowds.people(np.zeros(0, np.int64), np.zeros((0, 32), np.uint8))
        return Crowds("births", 1, "same", DECLARED, 1, [Crowd(nobody, {})])

    apart = len(ours ^ theirs)
    assert both(of(ours), of(theirs), k) == (apart == 0 or apart >= k)


def test_numbers_that_collide_never_make_two_sets_equal() -> None:
    """The first four bytes agree, the identifiers do not: it counts as a difference of nobody, hence of too few."""
    one, other = np.zeros((2, 1, 32), np.uint8)
    other[0, 31] = 1
    sets = [crowds.people(np.zeros(1, np.int64), identifiers).loaded() for identifiers in (one, other)]
    assert sets[0].numbers == sets[1].numbers and sets[0].near(sets[1], K)


def test_the_same_people_of_one_version_differ_in_many_rows_or_in_none() -> None:
    """Nine people have one row each in both, Ada thirty others in each: the difference is Ada's alone."""
    rows, others = np.random.default_rng(7).uniform(1, 5, (2, 39, 2))
    who = np.r_[[0] * 30, np.arange(1, 10)]
    others[30:] = rows[30:]
    first = answer(rows, who=who, data="same", most=30)
    assert both(first, answer(rows, who=who, data="same", most=30))
    assert not both(first, answer(others, who=who, data="same", most=30))
    assert not both(first, answer(rows[1:], who=who[1:], data="same", most=30))
    everybody = answer(VALUES, who=np.arange(60), data="same", most=30)
    assert both(everybody, answer(VALUES[10:], who=np.arange(10, 60), data="same", most=30)), "ten people are many"


def test_equal_rows_are_counted() -> None:
    ones = np.ones((30, 1))
    assert not both(answer(ones), answer(ones[1:], dataset="other"))
    assert both(answer(ones), answer(ones[:20], dataset="other"))
    assert both(answer(np.array([[0.0]] * 30)), answer(np.array([[-0.0]] * 30), dataset="other", data="x"))


def test_a_session_keeps_no_more_of_earlier_answers_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that was asked for years has more of them than a worker has memory."""
    files = [tmp_path / str(number) for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes(crowds.encode(answer(VALUES + number)))
    most = max(file.stat().st_size for file in files)
    monkeypatch.setattr(crowds, "MOST_KEPT", 2 * most)
    earlier = crowds.Earlier()
    read = [earlier.read(str(file)) for file in (*files, files[0])]
    assert [found.crowds for found in read] == [crowds.decode(file.read_bytes()) for file in (*files, files[0])]
    assert list(earlier._read) == [str(files[3]), str(files[0])] and earlier._nbytes <= 2 * most
    assert earlier.read(str(files[3])) is read[3]
