"""What each person is charged by itself: never less than it contributed, never more in all than there is for it."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.compute import vector
from apps.compute.costs import LARGEST, costs, factor
from apps.compute.messages import Account
from apps.compute.vector import Contribution, Identifiers
from gridclient.wire.errors import InternalError

ORDERS = st.integers(1025, 4096 * 1024)
SCALES = st.floats(2.0**-10, 2.0**40) | st.sampled_from([2.0**-10, 1.0, 2.0**31, 2.0**40])
SQUARES = st.integers(0, 2**62) | st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**62 - 1, 2**62])
LIMIT = 1_000
NAMES = ["Ada", "Ben", "Cleo", "Dora", "Emil"]


@settings(max_examples=400, deadline=None)
@given(order=ORDERS, scale=SCALES, squares=st.lists(SQUARES, min_size=1, max_size=20))
def test_a_charge_is_the_exact_one_rounded_up(order: int, scale: float, squares: list[int]) -> None:
    exact = Fraction(order, 1024) * 2**40 / (2 * Fraction(scale) ** 2)
    if exact > LARGEST / 2:
        return
    found = costs(np.array(squares, dtype=np.int64), factor(order, scale), LARGEST)
    for square, cost in zip(squares, found.tolist(), strict=True):
        due = square * exact
        assert min(due, LARGEST) <= cost <= min(ceil(due * (1 + Fraction(1, 2**60))), LARGEST)


def test_noise_that_is_too_small_for_a_charge_is_told() -> None:
    with pytest.raises(ValueError, match="too small"):
        factor(4096 * 1024, 2.0**-20)
    with pytest.raises(ValueError, match="2\\^62"):
        costs(np.zeros(1, dtype=np.int64), factor(2048, 1.0), LARGEST + 1)


def test_nobody_is_charged_more_than_the_worst_case() -> None:
    per_unit = factor(2048, 1.0)
    assert costs(np.array([0, 1, 2, 3], dtype=np.int64), per_unit, 2**41).tolist() == [0, 2**40, 2**41, 2**41]


def identifiers(names: Iterable[str]) -> Identifiers:
    """As the data have them: HMACs, in ascending order."""
    return np.unique(np.array([hashlib.sha256(name.encode()).digest() for name in names], dtype="S32"))


class Books:
    """A pot beside a model of it, by name. Releases are committed at once, unless a test keeps them apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "records").mkdir(parents=True)
        self.log: list[str] = []
        self.uniform = 0
        self.spent: Counter[str] = Counter()
        self.left_out: set[str] = set()

    def account(self, *, worst: int, tested: bool) -> Account:
        return Account(str(self.folder), list(self.log), self.uniform, LIMIT, worst, 2048, tested)

    def contribution(self, dataset: str, amounts: dict[str, int], *, rows: int = 0) -> Contribution:
        """`rows`: more of them than people, who cost nothing."""
        by_identifier = {identifiers([name])[0]: amount for name, amount in amounts.items()}
        ordered = identifiers(amounts)
        made = [by_identifier[each] for each in ordered] + [0] * rows
        return Contribution(dataset, 1, np.array(made, dtype=np.uint64), lambda: ordered)

    def seal(self, parts: Sequence[Contribution], *, worst: int, tested: bool) -> tuple[str, bool]:
        path = self.folder / "sealed"
        digest, alone = vector.seal(path, self.account(worst=worst, tested=tested), parts)
        path.rename(self.folder / "records" / digest)
        return digest, alone

    def release(self, amounts: dict[str, dict[str, int]], *, worst: int, tested: bool) -> None:
        """Seal and commit; and do the same in the model."""
        digest, _ = self.seal(
            [self.contribution(name, part, rows=2) for name, part in amounts.items()], worst=worst, tested=tested
        )
        self.log.append(digest)
        total: Counter[str] = Counter()
        for part in amounts.values():
            total.update(part)
        record, self.left_out = vector.opened(self.folder / "records" / digest), set()
        for name, amount in total.items():
            cost = min(amount, worst)
            if tested and self.uniform + self.spent[name] + cost > LIMIT:
                self.left_out.add(name)
            else:
                self.spent[name] += cost
        for dataset, part in amounts.items():
            active = record.active(dataset, 1, len(part) + 2)
            ordered = identifiers(part).tolist()
            missing = {name for name in part if active is not None and not active[ordered.index(_one(name))]}
            assert missing == self.left_out & part.keys()

    def check(self) -> None:
        """The replay is the model, and within the limit."""
        found = vector.spent(self.folder, self.log)
        assert Counter(found.tolist()) == Counter({0: len(found) - len(self.spent)} | Counter(self.spent.values()))
        for name, amount in self.spent.items():
            place, new = vector.places(self.folder, self.log, len(found), name, 1, lambda n=name: identifiers([n]), [])
            assert (found[place].tolist(), len(new)) == ([amount], 0)
            assert self.uniform + amount <= LIMIT


def _one(name: str) -> bytes:
    return bytes(identifiers([name])[0])


PARTS = st.dictionaries(
    st.sampled_from(["births", "visits", "deaths"]),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 400), min_size=1),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(released=st.lists(st.tuples(PARTS, st.integers(0, 50)), max_size=25), every=st.sampled_from([1, 3, 100]))
def test_a_replay_is_the_sum_of_all_charges_and_never_beyond_the_limit(
    released: list[tuple[dict[str, dict[str, int]], int]], every: int
) -> None:
    header, worst, apart = 0, 300, vector.EVERY
    vector.EVERY = every
    try:
        with tempfile.TemporaryDirectory() as folder:
            books = Books(Path(folder) / "pot")
            for number, (parts, alike) in enumerate(released):
                # As the ledger does it: skip the test while the sum of worst cases fits; charge alike only then.
                books.release(_of_versions(parts, number), worst=worst, tested=header + worst > LIMIT)
                header += worst
                if header + alike <= LIMIT:
                    books.uniform, header = books.uniform + alike, header + alike
                books.check()
    finally:
        vector.EVERY = apart


def _of_versions(parts: dict[str, dict[str, int]], number: int) -> dict[str, dict[str, int]]:
    """The people of a version never change, so that each of these has a name of its own."""
    return {f"{name}{number}": part for name, part in parts.items()}


def test_people_are_charged_while_the_test_is_skipped(tmp_path: Path) -> None:
    books = Books(tmp_path / "pot")
    books.release({"births": {"Ada": 200, "Ben": 10}}, worst=500, tested=False)
    books.release({"births": {"Ada": 500, "Ben": 10}}, worst=500, tested=False)
    assert (books.spent, books.left_out) == ({"Ada": 700, "Ben": 20}, set())
    books.release({"births": {"Ada": 400, "Ben": 10}}, worst=500, tested=True)
    assert (books.spent, books.left_out) == ({"Ada": 700, "Ben": 30}, {"Ada"})
    books.check()


def test_one_person_in_two_datasets_and_their_later_versions_has_one_account(tmp_path: Path) -> None:
    books = Books(tmp_path / "pot")
    books.release({"births": {"Ada": 400, "Ben": 1}, "visits": {"Ada": 400, "Cleo": 7}}, worst=1_000, tested=False)
    books.release({"births again": {"Ada": 200}, "moved": {"Dora": 1, "Ben": 1}}, worst=1_000, tested=True)
    assert books.spent == {"Ada": 1_000, "Ben": 2, "Cleo": 7, "Dora": 1}
    books.release({"a third": {"Ada": 1, "Emil": 3}}, worst=1_000, tested=True)
    assert books.left_out == {"Ada"}
    books.check()


def test_whoever_contributes_nothing_is_never_left_out(tmp_path: Path) -> None:
    books = Books(tmp_path / "pot")
    books.release({"births": {"Ada": LIMIT, "Ben": 3}}, worst=LIMIT, tested=False)
    books.release({"births": {"Ada": 0, "Ben": 3}}, worst=LIMIT, tested=True)
    assert books.left_out == set()


def test_what_is_cached_can_go_at_any_time(tmp_path: Path) -> None:
    books = Books(tmp_path / "pot")
    for _ in range(2 * vector.EVERY + 3):
        books.release({"births": {"Ada": 3, "Ben": 5}}, worst=10, tested=False)
    cache = books.folder / "cache"
    assert (cache / "spent").exists() and (cache / "places-births-1").exists()
    for file in cache.iterdir():
        file.unlink()
    books.check()


def test_a_cache_of_another_ledger_is_not_believed(tmp_path: Path) -> None:
    """Database and storage were put back to an earlier state, and other answers were given since."""
    books = Books(tmp_path / "pot")
    for _ in range(vector.EVERY + 1):
        books.release({"births": {"Ada": 3, "Ben": 5}}, worst=10, tested=False)
    assert (books.folder / "cache" / "spent").exists()
    books.log, books.spent = books.log[:2], Counter({"Ada": 6, "Ben": 10})
    books.check()
    for _ in range(vector.EVERY):
        books.release({"births": {"Ben": 4}}, worst=10, tested=False)
    books.check()


def test_answers_about_known_people_need_not_wait_for_each_other(tmp_path: Path) -> None:
    books = Books(tmp_path / "pot")
    first = books.contribution("births", {"Ada": 3})
    _, alone = books.seal([first], worst=10, tested=False)
    assert alone, "two records that number the same person anew would give two accounts"
    books.release({"births": {"Ada": 3}}, worst=10, tested=False)
    sealed = [books.seal([books.contribution("births", {"Ada": 3})], worst=10, tested=tested) for tested in (0, 1)]
    assert [alone for _, alone in sealed] == [False, True]


def test_two_records_of_one_content_have_two_names(tmp_path: Path) -> None:
    """A digest is public: whoever can guess a record could otherwise see that the guess was right."""
    books = Books(tmp_path / "pot")
    found = {books.seal([books.contribution("births", {"Ada": 3})], worst=10, tested=False)[0] for _ in range(3)}
    assert len(found) == 3


def test_a_damaged_record_is_not_counted(tmp_path: Path) -> None:
    books = Books(tmp_path / "pot")
    books.release({"births": {"Ada": 3}}, worst=10, tested=True)
    path = books.folder / "records" / books.log[0]
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(InternalError, match="damaged"):
        vector.spent(books.folder, books.log)


def test_a_record_is_for_the_data_that_were_charged(tmp_path: Path) -> None:
    books = Books(tmp_path / "pot")
    books.release({"births": {"Ada": 3, "Ben": 1}}, worst=10, tested=True)
    record = vector.opened(books.folder / "records" / books.log[0])
    for dataset, version, entities in (("visits", 1, 2), ("births", 2, 2), ("births", 1, 1)):
        with pytest.raises(InternalError, match="charged"):
            record.active(dataset, version, entities)
