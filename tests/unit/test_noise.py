"""The noise has exactly its law, and is never drawn twice: else an answer could be told from its neighbour's."""

from __future__ import annotations

import decimal
import math
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from opendp import domains, measurements, metrics

from apps.compute import noise

ROOT = Path(__file__).resolve().parents[2]
Sampler = Callable[[float, int], NDArray[np.int64]]
FEW = 2000
DEEP = decimal.Context(prec=120)


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Random bytes of the operating system come from a seed: what is measured is the same in every run."""
    return lambda seed: monkeypatch.setattr(os, "urandom", random.Random(seed).randbytes)


def mass(scale: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Integers within 9 scales, and their probabilities."""
    most = math.ceil(9 * scale)
    values = np.arange(-most, most + 1)
    weights = np.exp(-((values / scale) ** 2) / 2)
    return values, weights / weights.sum()


def excess(observed: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    """Chi-square of counts, as standard deviations above what is usual (Wilson, Hilferty 1931).

    Neighbours are put together until at least 10 are expected.
    """
    groups = np.cumsum(expected) // 10
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    seen, wanted = np.add.reduceat(observed, firsts), np.add.reduceat(expected, firsts)
    freedom = len(firsts) - 1
    statistic = ((seen - wanted) ** 2 / wanted).sum()
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - 1 + spread) / math.sqrt(spread))


def counted(drawn: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    assert np.abs(drawn).max() <= values[-1]
    return np.bincount(drawn + values[-1], minlength=len(values))


def by_opendp(scale: float, size: int) -> NDArray[np.int64]:
    """The oracle: the same law by a library that others have proven."""
    space = domains.vector_domain(domains.atom_domain(T="i64")), metrics.l2_distance(T="f64")
    return np.array(measurements.make_gaussian(*space, scale=scale)([0] * size), dtype=np.int64)


# --- the law --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.3, 31.7, 250.0])
def test_many_numbers_follow_the_exact_mass_function(seeded: Callable[[int], None], scale: float) -> None:
    seeded(1)
    values, probabilities = mass(scale)
    drawn = noise.discrete_gaussian(scale, 300_000)
    assert excess(counted(drawn, values), probabilities * len(drawn)) < 4


@pytest.mark.parametrize("scale", [1.0, 3.3, 31.7])
def test_few_numbers_follow_the_exact_mass_function(scale: float) -> None:
    values, probabilities = mass(scale)
    drawn = by_opendp(scale, 20_000)
    # Its source can't be seeded: six deviations are seen once in a billion runs.
    assert excess(counted(drawn, values), probabilities * len(drawn)) < 6


@pytest.mark.parametrize("scale", [2.0**20 + 0.5, 2.0**31, noise.MOST])
def test_wide_noise_is_gaussian_down_to_its_lowest_bits(seeded: Callable[[int], None], scale: float) -> None:
    seeded(2)
    drawn = noise.discrete_gaussian(scale, 200_000)
    # At such scales the sum over an interval is the integral, to far more digits than can be measured.
    edges = np.linspace(-5, 5, 101)
    below = np.array([math.erfc(-edge / math.sqrt(2)) / 2 for edge in edges])
    expected = np.diff(below, prepend=0, append=1) * len(drawn)
    assert excess(np.bincount(np.searchsorted(edges, drawn / scale), minlength=102), expected) < 4
    assert excess(np.bincount(drawn % 64, minlength=64), np.full(64, len(drawn) / 64)) < 4


@pytest.mark.parametrize("scale", [0.4, 1.0, 31.7])
def test_moments_are_those_of_the_law(seeded: Callable[[int], None], scale: float) -> None:
    seeded(3)
    values, probabilities = mass(scale)
    drawn = noise.discrete_gaussian(scale, 400_000).astype(np.float64)
    for power in range(1, 5):
        moment, square = (float((values.astype(np.float64) ** p) @ probabilities) for p in (power, 2 * power))
        assert abs((drawn**power).mean() - moment) < 4 * math.sqrt((square - moment**2) / len(drawn))


def test_both_samplers_have_one_law(seeded: Callable[[int], None]) -> None:
    seeded(4)
    values, probabilities = mass(5.5)
    few, many = (counted(sampler(5.5, 20_000), values) for sampler in (by_opendp, noise.discrete_gaussian))
    # The difference of two counts has the variance of both: halved, that of one.
    assert excess((few - many) / math.sqrt(2) + probabilities * 20_000, probabilities * 20_000) < 6


def test_narrow_noise_is_nearly_always_zero(seeded: Callable[[int], None]) -> None:
    seeded(5)
    assert not noise.discrete_gaussian(noise.LEAST, 10_000).any()


# --- floats and integers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.4, 3.3, 1000.25, 2.0**31 + 1, noise.MOST])
def test_floats_decide_as_integers_do(
    seeded: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """The same random words: every one of them decided again."""
    seeded(6)
    quick = noise.discrete_gaussian(scale, 1500)
    seeded(6)
    monkeypatch.setattr(noise, "MARGIN", 2.0)
    assert np.array_equal(noise.discrete_gaussian(scale, 1500), quick)


@pytest.mark.parametrize("margin", [2.0, 0.125])
def test_what_is_decided_in_integers_has_the_same_law(
    seeded: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, margin: float
) -> None:
    seeded(7)
    monkeypatch.setattr(noise, "MARGIN", margin)
    values, probabilities = mass(2.5)
    drawn = noise.discrete_gaussian(2.5, 8000)
    assert excess(counted(drawn, values), probabilities * len(drawn)) < 4


def test_a_close_acceptance_is_decided_in_integers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word whose float lies on the probability itself: exp(-0.5) at scale 1, where u = v = 0 and t = 2."""
    asked: list[int] = []
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or b"\xff" * count)
    word = (2**noise.STEP_BITS - 1) << (noise.ACCEPT_BITS + 1)
    # (0 - 1/2)^2 / 2 = 1/8
    low, _ = noise.exp_bounds(Fraction(1, 8), noise.ACCEPT_BITS)
    for accept, kept in ((low - 2, True), (low, False), (low + 2, False)):
        asked.clear()
        drawn = noise._kept(np.array([0], dtype=np.uint64), np.array([word | accept], dtype=np.uint64), 1.0)
        assert drawn.tolist() == [0] * kept
        assert bool(asked) == (accept == low)


@pytest.mark.parametrize("k", range(1, 7))
def test_a_step_on_its_threshold_is_drawn_further(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    threshold = int(noise.STEPS[k - 1])
    found = {}
    for filler in (b"\x00", b"\xff"):
        monkeypatch.setattr(os, "urandom", lambda count, filler=filler: filler * count)
        words = np.array([threshold << (noise.ACCEPT_BITS + 1)], dtype=np.uint64)
        # At this scale all k are likely, and an acceptance of 0 is below any probability.
        found[filler] = noise._kept(np.zeros(1, dtype=np.uint64), words, 2.0).tolist()
    assert found == {b"\x00": [3 * k], b"\xff": [3 * (k - 1)]}


@pytest.mark.parametrize("bits", [1, 23, 40, 104, 300])
@pytest.mark.parametrize(
    "x",
    [Fraction(0), Fraction(1, 10**9), Fraction(1, 3), Fraction(1), Fraction(7, 2), Fraction(45), Fraction(10**6, 7)],
)
def test_bounds_of_an_exponential_are_around_it(x: Fraction, bits: int) -> None:
    low, high = noise.exp_bounds(x, bits)
    with decimal.localcontext(DEEP):
        exact = (decimal.Decimal(-x.numerator) / x.denominator).exp() * 2**bits
        near = decimal.Decimal(10) ** -110
        assert low <= exact * (1 + near)
        assert exact * (1 - near) <= high
    assert high - low <= 2


def test_thresholds_of_steps_are_exponentials_rounded_down() -> None:
    exact = [math.floor(DEEP.multiply(DEEP.exp(decimal.Decimal(-k)), 2**noise.STEP_BITS)) for k in range(1, 17)]
    assert [int(step) for step in noise.STEPS] == exact
    assert exact[-1] == 0


def test_places_that_would_favour_small_numbers_are_refused() -> None:
    """2^64 is no multiple of 3: the last word would be a fourth for one of them."""
    words = np.array([2**noise.STEP_BITS - 1 << (noise.ACCEPT_BITS + 1)] * 2, dtype=np.uint64)
    places = np.array([2**64 - 1, 2**64 - 2], dtype=np.uint64)
    assert noise._kept(places, words, 2.0).tolist() == [2]


# --- the source -----------------------------------------------------------------------------------------------------


def test_random_bytes_are_asked_for_in_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    genuine = os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or genuine(count))
    for _ in range(3):
        asked.clear()
        noise.discrete_gaussian(100.0, FEW + 1)
        # At least one word for the place and one for the rest.
        assert sum(asked) >= 16 * FEW


def test_the_same_bytes_make_the_same_noise_whatever_was_drawn_before(seeded: Callable[[int], None]) -> None:
    """Nothing is kept from one call for the next."""
    seeded(8)
    first = noise.discrete_gaussian(50.0, 5000)
    noise.discrete_gaussian(3.0, 777)
    seeded(8)
    assert np.array_equal(noise.discrete_gaussian(50.0, 5000), first)


def _script(text: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode().split()


FORKS = """
    import os
    from apps.compute import noise
    {before}
    for number in range({workers}):
        child = os.fork()
        if child == 0:
            print({drawn}, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("before", "drawn", "workers"),
    [
        ("noise.discrete_gaussian(2.0**40, 1)", "*noise.discrete_gaussian(2.0**40, 2)", 1000),
    ],
)
def test_a_thousand_forked_workers_draw_no_number_twice(before: str, drawn: str, workers: int) -> None:
    found = _script(FORKS.format(before=before, drawn=drawn, workers=workers))
    # Two equal ones among two thousand at this scale are a chance of one in a million.
    assert len(found) == len(set(found)) == 2 * workers


def test_a_process_forked_after_a_draw_leaves_the_inherited_generator_alone() -> None:
    """It knows a fork by the process id, which two processes of two namespaces share."""
    said = _script("""
        import os
        from apps.compute import noise

        def forked(act):
            child = os.fork()
            if child == 0:
                try:
                    act()
                except RuntimeError:
                    print("refused", flush=True)
                else:
                    print("drawn", flush=True)
                os._exit(0)
            os.waitpid(child, 0)

        acts = [lambda: noise.noisy_max([1, 2], 1.0), lambda: noise.discrete_gaussian(5.0, 1)]
        for act in acts:
            forked(act)
        noise.noisy_max([1, 2], 1.0)
        for act in acts:
            forked(act)
        forked(lambda: forked(acts[0]))
    """)
    assert said == ["drawn", "drawn", "refused", "drawn", "refused", "drawn"]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, noise.LEAST / 2, noise.MOST * 1.01])
def test_a_scale_without_a_proven_law_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        noise.discrete_gaussian(scale, 1)


@pytest.mark.parametrize("size", [0, 1, FEW, FEW + 1, noise.BLOCK + 1])
def test_as_many_numbers_are_drawn_as_were_asked_for(size: int) -> None:
    drawn = noise.discrete_gaussian(noise.MOST, size)
    assert (drawn.dtype, drawn.shape) == (np.int64, (size,))
    assert len(set(drawn.tolist())) == size
