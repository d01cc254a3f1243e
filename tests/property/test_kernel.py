"""No entity moves a released sum by more than the clip, whatever its rows are; and what is released is the sum."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from apps.compute import kernel
from apps.compute.mechanism import Mechanism, mechanism
from gridclient.wire.errors import InvalidInputError

HOSTILE = [
    0.0, -0.0, 5e-324, -2.2e-308, 1e-160, 1e308, -1e308, 1.7976931348623157e308, math.inf, -math.inf, math.nan,
    1.0, -1.0, math.nextafter(1.0, 2.0), math.nextafter(1.0, 0.0), 2.0**31, 2.0**63, -(2.0**63), 2.0**400, 1e200,
]  # fmt: skip
CLIPS = st.sampled_from([1.0, 0.7, 3.0, math.sqrt(2), math.sqrt(10), 1e-9, 123456.789, 2.0**-256, 2.0**250])
PARTS = st.sampled_from([*HOSTILE]) | st.floats(-2, 2) | st.floats()


@st.composite
def cases(draw: Any) -> tuple[Any, Any, Any, Mechanism]:
    """Rows, the entity of each (or none said), which are kept, and a mechanism. Numbers are around the clip or wild."""
    size, clip = draw(st.integers(1, 4)), draw(CLIPS)
    count = draw(st.integers(0, 7))
    entities = draw(st.integers(1, 5)) if draw(st.booleans()) else None
    flat = draw(st.lists(PARTS, min_size=count * size, max_size=count * size))
    scaled = draw(st.booleans())
    with np.errstate(all="ignore"):
        rows = np.array(flat, dtype=np.float64).reshape(count, size) * (clip if scaled else 1.0)
    codes = None
    if entities is not None:
        said = st.lists(st.integers(-1, entities), min_size=count, max_size=count)
        codes = np.array(draw(said | st.just([0] * count)), dtype=np.int64)
    keep = draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    spare = draw(st.integers(0, 2))
    how = mechanism(clip=clip, sigma=8 * clip, size=size, entities=(entities or count or 1) + spare)
    return rows, codes, None if keep is None else np.array(keep, dtype=np.bool_), how


def exact(rows: Any) -> list[list[int]]:
    return [[int(number) for number in row] for row in rows]


def exact_sum(q: Any) -> list[int]:
    return [sum(column) for column in zip(*exact(q), strict=True)] if len(q) else [0] * q.shape[1]


def squared(numbers: Any) -> int:
    return sum(int(number) ** 2 for number in numbers)


# --- one entity -----------------------------------------------------------------------------------------------------


@given(cases(), st.integers(0, 8), st.lists(PARTS, min_size=4, max_size=4))
def test_no_entity_moves_the_sum_by_more_than_the_clip(case: Any, who: int, other: list[float]) -> None:
    """Its rows to null records, whatever numbers those hold; the others' contributions stay as they are, to the bit."""
    rows, codes, keep, how = case
    who %= how.entities
    own = (np.arange(len(rows)) if codes is None else codes) == who
    nulled = np.where(own[:, None], np.array(other[: how.size]), rows)
    left = ~own if keep is None else ~own & keep
    q, without = kernel.quantised(rows, codes, keep, how), kernel.quantised(nulled, codes, left, how)
    assert not without[who].any()
    assert np.array_equal(np.delete(q, who, axis=0), np.delete(without, who, axis=0))
    moved = [a - b for a, b in zip(kernel.integer_sum(q).tolist(), kernel.integer_sum(without).tolist(), strict=True)]
    assert Fraction(squared(moved)) <= (Fraction(how.clip) / Fraction(2) ** how.grid) ** 2
    assert squared(moved) <= how.bound**2


@given(cases())
def test_every_contribution_is_within_the_bound_and_the_sum_is_exact(case: Any) -> None:
    rows, codes, keep, how = case
    q = kernel.quantised(rows, codes, keep, how)
    assert (q.dtype, q.shape) == (np.int64, (how.entities, how.size))
    assert kernel.squared_norms(q).tolist() == [squared(row) for row in exact(q)]
    assert all(squared(row) <= how.bound**2 for row in exact(q))
    assert kernel.integer_sum(q).tolist() == exact_sum(q)


def reference(rows: Any, how: Mechanism) -> list[Fraction]:
    """An entity's contribution in units of the grid: float64 sum, then exact but for a root with 2^-60 of error."""
    total = [0.0] * how.size
    for row in rows:
        total = [a + (float(b) if math.isfinite(b) else 0.0) for a, b in zip(total, row, strict=True)]
    unit = Fraction(2) ** how.grid
    v = [Fraction(number) / unit if math.isfinite(number) else Fraction(0) for number in total]
    norm = sum(number**2 for number in v)
    if norm <= how.bound**2:
        return v
    root = Fraction(math.isqrt(math.floor(norm * 2**200)), 2**100)
    return [number * how.bound / root for number in v]


@given(cases())
def test_a_contribution_is_its_clipped_sum_but_for_two_units_of_the_grid(case: Any) -> None:
    """Toward zero: no contribution is lost, turned or made longer."""
    rows, codes, keep, how = case
    rows = np.where(np.abs(rows) < 2.0**kernel.FAR * how.clip, rows, 0.0)
    q = kernel.quantised(rows, codes, keep, how)
    codes = np.arange(len(rows)) if codes is None else codes
    kept = np.ones(len(rows), dtype=np.bool_) if keep is None else keep
    for who in range(how.entities):
        for number, wanted in zip(q[who].tolist(), reference(rows[(codes == who) & kept], how), strict=True):
            assert abs(number - wanted) < 2
            assert number * wanted >= 0 and abs(number) <= abs(wanted) * (1 + Fraction(1, 2**50))


def test_negative_numbers_are_quantised_toward_zero_as_positive_ones_are() -> None:
    how = mechanism(clip=1.0, sigma=8.0, size=1, entities=6)
    parts = np.array([[0.25], [0.75], [1.5], [-0.25], [-0.75], [-1.5]])
    assert kernel.quantised(parts * 2.0**how.grid, None, None, how).ravel().tolist() == [0, 0, 1, 0, 0, -1]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 100_003])
def test_an_entity_at_all_its_bounds_is_not_lost(size: int) -> None:
    """Its norm is the clip: rounding must not take it for a longer one."""
    how = mechanism(clip=math.sqrt(size), sigma=8 * math.sqrt(size), size=size, entities=1)
    (q,) = kernel.quantised(np.ones((1, size)), None, None, how)
    assert np.abs(q - 2.0**-how.grid).max() <= 2


def test_a_contribution_that_is_still_too_long_becomes_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """If ever floats erred, the integers would know."""
    monkeypatch.setattr(kernel, "SLACK", 1 + 2.0**-20)
    how = mechanism(clip=1.0, sigma=8.0, size=3, entities=2)
    q = kernel.quantised(np.array([[5.0, 5.0, 5.0], [0.1, 0.1, 0.1]]), None, None, how)
    assert not q[0].any() and q[1].all()


@pytest.mark.parametrize(
    "parts",
    [
        [2**31] * 2,
        [2**31] * 4,
        [2**31, 2**31, 1],
        [2**62, 0],
        [-(2**63)] * 3,
        [2**32],
        [3037000500] * 2,
        [2**31 - 1] * 9,
    ],
)
def test_no_sum_of_squares_wraps_into_a_small_one(parts: list[int]) -> None:
    (norm,) = kernel.squared_norms(np.array([parts], dtype=np.int64)).tolist()
    assert norm == squared(parts) if squared(parts) <= 2**62 else norm > 2**62


@given(st.lists(st.lists(st.integers(-(2**31), 2**31), min_size=3, max_size=3), min_size=1, max_size=5))
def test_squared_norms_are_exact_up_to_the_longest(rows: list[list[int]]) -> None:
    for norm, row in zip(kernel.squared_norms(np.array(rows, dtype=np.int64)).tolist(), rows, strict=True):
        assert norm == squared(row) or min(norm, squared(row)) > 2**62


# --- rows that are hostile or many ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_counts_as_zero_and_spoils_nothing_else(bad: float) -> None:
    how = mechanism(clip=10.0, sigma=80.0, size=2, entities=2)
    q = kernel.quantised(np.array([[bad, 0.5], [1.0, bad], [0.25, 0.0]]), np.array([0, 0, 1]), None, how)
    assert (q * 2.0**how.grid).tolist() == [[1.0, 0.5], [0.25, 0.0]]
    direct = kernel.quantised(np.array([[bad, 0.5], [1.0, bad]]), None, None, how)
    assert (direct * 2.0**how.grid).tolist() == [[0.0, 0.5], [1.0, 0.0]]


def test_a_sum_that_overflows_counts_as_zero_for_its_entity_alone() -> None:
    how = mechanism(clip=1.0, sigma=8.0, size=1, entities=2)
    q = kernel.quantised(np.array([[1e308], [1e308], [0.5]]), np.array([0, 0, 1]), None, how)
    assert (q * 2.0**how.grid).ravel().tolist() == [0.0, 0.5]


@pytest.mark.parametrize("row", [[1e308, 1.0], [-1e308, 1e308], [1.7976931348623157e308] * 2, [2.0**401, 0.0]])
def test_a_huge_contribution_is_clipped_and_not_lost(row: list[float]) -> None:
    """No square of it is a float, but its direction is still known, or that of its largest numbers."""
    how = mechanism(clip=1.0, sigma=8.0, size=2, entities=1)
    (q,) = kernel.quantised(np.array([row]), None, None, how).tolist()
    assert how.bound * 0.999 < math.sqrt(squared(q)) <= how.bound
    assert [number * part >= 0 for number, part in zip(q, row, strict=True)] == [True, True]


def test_rows_that_are_not_kept_contribute_nothing_even_where_they_are_not_numbers() -> None:
    how = mechanism(clip=4.0, sigma=32.0, size=1, entities=4)
    rows, keep = np.array([[1.0], [math.nan], [-math.inf], [2.0]]), np.array([True, False, False, False])
    for codes in (None, np.array([3, 2, 1, 0])):
        assert kernel.integer_sum(kernel.quantised(rows, codes, keep, how)).tolist() == [2**-how.grid]


def test_one_entity_that_owns_every_row_is_clipped_once_and_not_row_by_row() -> None:
    how = mechanism(clip=1.0, sigma=8.0, size=2, entities=3)
    q = kernel.quantised(np.full((500, 2), 0.01), np.full(500, 1), None, how)
    assert kernel.squared_norms(q)[1] <= how.bound**2
    assert not q[[0, 2]].any()


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_entities_makes_no_difference(case: Any, chance: Any) -> None:
    """Rows of one entity keep their order: their float sum may depend on it."""
    rows, codes, keep, how = case
    own = np.arange(len(rows)) if codes is None else codes
    ranks = {who: chance.random() for who in sorted(set(own.tolist()))}
    order = np.array(sorted(range(len(rows)), key=lambda row: ranks[int(own[row])]), dtype=np.int64)
    moved = kernel.quantised(rows[order], own[order], None if keep is None else keep[order], how)
    assert np.array_equal(moved, kernel.quantised(rows, codes, keep, how))


@pytest.mark.parametrize(("count", "size", "entities"), [(0, 1, 0), (0, 3, 2), (3, 0, 3), (2, 9, 2), (4, 4, 4)])
def test_shapes_at_the_edge_are_answered(count: int, size: int, entities: int) -> None:
    how = mechanism(clip=3.0, sigma=24.0, size=size, entities=entities)
    for codes in (None, np.zeros(count, dtype=np.int64)):
        answer = kernel.release(np.ones((count, size)), codes, np.ones(count, dtype=np.bool_), how)
        assert (answer.dtype, answer.shape) == (np.float64, (size,))
        assert np.isfinite(answer).all()


def test_blocks_are_as_good_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(3)
    rows, codes = chance.normal(size=(257, 5)), chance.integers(0, 60, size=257)
    keep, active = chance.random(257) < 0.8, chance.random(60) < 0.5
    how = mechanism(clip=2.0, sigma=16.0, size=5, entities=60)
    q = kernel.quantised(rows, codes, keep, how)
    monkeypatch.setattr(kernel, "BLOCK", 13)
    assert np.array_equal(kernel.quantised(rows, codes, keep, how), q)
    assert kernel.integer_sum(q, active).tolist() == exact_sum(q[active])
    assert kernel.squared_norms(q).tolist() == [squared(row) for row in exact(q)]


def test_a_sum_as_large_as_there_can_be_is_exact() -> None:
    q = np.full((100_000, 2), 2**31, dtype=np.int64) * np.array([1, -1])
    assert kernel.integer_sum(q).tolist() == [100_000 * 2**31, -100_000 * 2**31]


@pytest.mark.parametrize("size", [1, 7, 37, 300])
def test_where_a_row_lies_in_memory_makes_no_difference(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Nor what is beside it: the last bit of one entity would tell of others."""
    chance = np.random.default_rng(5)
    how = mechanism(clip=1.0, sigma=8.0, size=size, entities=40)
    rows = chance.normal(size=(40, size))
    for codes in (None, np.repeat(np.arange(20), 2)):
        wanted = kernel.quantised(rows, codes, None, how)
        assert np.array_equal(kernel.quantised(np.asfortranarray(rows), codes, None, how), wanted)
        for shift in range(1, 9):
            room = np.empty(rows.size + shift)
            room[shift:] = rows.ravel()
            monkeypatch.setattr(kernel, "BLOCK", shift * size)
            assert np.array_equal(kernel.quantised(room[shift:].reshape(rows.shape), codes, None, how), wanted)


# --- noise and units ------------------------------------------------------------------------------------------------


def test_noise_is_drawn_once_at_the_scale_of_the_mechanism(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def known(scale: float, size: int) -> NDArray[np.int64]:
        asked.append((scale, size))
        return np.array([5, -7], dtype=np.int64)

    monkeypatch.setattr(kernel, "discrete_gaussian", known)
    how = mechanism(clip=2.0, sigma=3.3, size=2, entities=4)
    rows = np.array([[0.5, 0.25], [0.5, -0.5]])
    unit = 2.0**how.grid
    assert kernel.release(rows, None, None, how).tolist() == [1.0 + 5 * unit, -0.25 - 7 * unit]
    assert asked == [(3.3 / unit, 2)]


@pytest.mark.parametrize("size", [1500, 3000])
def test_the_spread_of_an_answer_is_sigma(size: int) -> None:
    how = mechanism(clip=1.0, sigma=7.0, size=size, entities=10)
    answer = kernel.release(np.zeros((10, size)), None, None, how)
    # Six deviations of a standard deviation: seen once in a billion runs.
    assert abs(answer.std() / 7.0 - 1) < 6 / math.sqrt(2 * size)
    assert abs(answer.mean()) < 6 * 7.0 / math.sqrt(size)


def test_a_noisy_number_beyond_53_bits_is_the_nearest_float(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "discrete_gaussian", lambda scale, size: np.array([1], dtype=np.int64))
    how = mechanism(clip=1.0, sigma=8.0, size=1, entities=2**26)
    assert kernel.noisy(np.array([2**56 + 2**3]), how).tolist() == [float(2**56 + 2**3 + 1) * 2.0**how.grid]
    assert kernel.noisy(np.array([2**52]), how).tolist() == [(2**52 + 1) * 2.0**how.grid]


# --- the mechanism --------------------------------------------------------------------------------------------------


@given(
    st.floats(2.0**-256, 2.0**256), st.floats(2.0**-8, 2.0**50), st.integers(0, 10), st.integers(0, 2**62)
)  # fmt: skip
def test_a_mechanism_keeps_its_promises_or_there_is_none(clip: float, ratio: float, size: int, entities: int) -> None:
    try:
        how = mechanism(clip=clip, sigma=clip * ratio, size=size, entities=entities)
    except InvalidInputError:
        return
    unit = Fraction(2) ** how.grid
    assert how.bound == math.floor(Fraction(clip) / unit) and 1 <= how.bound <= 2**31
    assert how.bound * entities < 2**62
    assert Fraction(how.scale) == Fraction(how.sigma) / unit and how.scale <= 2**40
    assert 2 * entities * unit <= Fraction(how.sigma) / 16
    # The finest one: half of the grid would break one of the two.
    assert Fraction(clip) / (unit / 2) > 2**31 or Fraction(how.sigma) / (unit / 2) > 2**40


@pytest.mark.parametrize(("entities", "epsilon_one"), [(85, 4.2247), (100_000, 4.2247), (10_000_000, 4.2247)])
def test_quantisation_is_far_below_the_noise_of_an_ordinary_answer(entities: int, epsilon_one: float) -> None:
    how = mechanism(clip=1.0, sigma=epsilon_one, size=1, entities=entities)
    assert how.error < how.sigma / 400
    chance = np.random.default_rng(1)
    rows = chance.uniform(-1, 1, size=(min(entities, 100_000), 1))
    total = kernel.integer_sum(kernel.quantised(rows, None, None, how))
    assert abs(math.fsum(rows.ravel()) - float(total[0]) * 2.0**how.grid) <= how.error


@pytest.mark.parametrize(
    "change",
    [
        {"clip": math.nan}, {"clip": math.inf}, {"clip": 0.0}, {"clip": -1.0}, {"sigma": math.nan}, {"sigma": math.inf},
        {"sigma": 0.0}, {"sigma": -8.0}, {"size": -1}, {"entities": -1}, {"entities": 2**40}, {"clip": 1e-300},
        {"sigma": 1e300}, {"sigma": 2.0**45}, {"sigma": 1e-9}, {"sigma": 512.0, "entities": 2**32},
    ],
)  # fmt: skip
def test_public_values_without_a_sound_mechanism_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        mechanism(**{"clip": 1.0, "sigma": 8.0, "size": 1, "entities": 10, **change})


@pytest.mark.parametrize(
    "change", [{"grid": -32}, {"grid": 1}, {"grid": -9999}, {"clip": 2.0}, {"entities": 2**31}, {"sigma": 1024.0}]
)
def test_a_mechanism_from_elsewhere_is_checked_too(change: dict[str, Any]) -> None:
    how = mechanism(clip=1.0, sigma=8.0, size=1, entities=10)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(how), type=Mechanism) == how
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode({**msgspec.structs.asdict(how), **change}), type=Mechanism)


HOW = mechanism(clip=1.0, sigma=8.0, size=2, entities=3)
ROWS, CODES, KEEP = np.zeros((3, 2)), np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.bool_)


@pytest.mark.parametrize(
    ("rows", "codes", "keep"),
    [
        (ROWS.astype(np.float32), CODES, KEEP), (np.zeros((3, 3)), CODES, KEEP), (np.zeros(3), CODES, KEEP),
        (np.zeros((4, 2)), None, None), (ROWS, CODES[:2], KEEP), (ROWS, CODES.astype(np.int32), KEEP),
        (ROWS, CODES, KEEP[:2]), (ROWS, CODES, KEEP.astype(np.int64)),
    ],
)  # fmt: skip
def test_rows_of_another_shape_or_dtype_are_refused(rows: Any, codes: Any, keep: Any) -> None:
    with pytest.raises(ValueError, match=r"not|more than"):
        kernel.quantised(rows, codes, keep, HOW)


@pytest.mark.parametrize("active", [KEEP[:2], np.ones(1, dtype=np.bool_), np.ones(3, dtype=np.int64)])
def test_a_choice_of_other_entities_is_refused(active: Any) -> None:
    with pytest.raises(ValueError, match="active"):
        kernel.integer_sum(np.zeros((3, 2), dtype=np.int64), active)


def test_a_sum_of_another_mechanism_is_not_released() -> None:
    with pytest.raises(ValueError, match="sum"):
        kernel.noisy(np.zeros(3, dtype=np.int64), HOW)
