"""A person is promised an epsilon; these figures keep it. References: published runs, dp_accounting, OpenDP."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from apps.budgets import accountant
from apps.budgets.accountant import UNIT

ORDERS = range(2, 257)
RUNS = [
    (0.01, 4.0, 10_000, 1.2586, 1.0355, 0.947),
    (1 / 240, 1.3, 3_600, 1.180, 0.942, 0.853),
    (256 / 60_000, 1.12, 14_062, 2.922, 2.519, 2.310),
    (256 / 60_000, 1.1, 14_062, 3.008, 2.597, 2.382),
]
"""Sampling rate, noise, steps; epsilon at delta 1e-5 by the classic conversion, by CKS and by PLD."""


def event(rate: float, noise: float) -> dp_event.DpEvent:
    """A step of DP-SGD, in the reference's words."""
    return dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))


def digits(figure: float) -> float:
    """Half a unit of the last digit that a published figure has."""
    return 0.5001 * 10 ** -len(str(figure).partition(".")[2])


@pytest.mark.parametrize(("rate", "noise", "steps", "classic", "cks", "pld"), RUNS)
def test_a_training_run_costs_what_the_literature_says(
    rate: float, noise: float, steps: int, classic: float, cks: float, pld: float
) -> None:
    spent = [steps * accountant.subsampled_divergence(order, rate, noise) for order in ORDERS]
    oracle = RdpAccountant(list(ORDERS)).compose(event(rate, noise), steps)
    assert accountant.cks_epsilon(ORDERS, spent, 1e-5) == pytest.approx(oracle.get_epsilon(1e-5), rel=1e-9, abs=0)
    # Published figures have the best of many orders; the best whole one is a little above, never below.
    found = accountant.classic_epsilon(ORDERS, spent, 1e-5), accountant.cks_epsilon(ORDERS, spent, 1e-5)
    for figure, published in zip(found, (classic, cks), strict=True):
        assert published - digits(published) <= figure <= published + digits(published) + 0.002
    fine = RdpAccountant().compose(event(rate, noise), steps)
    assert fine.get_epsilon(1e-5) == pytest.approx(cks, abs=digits(cks))
    tight = PLDAccountant(value_discretization_interval=1e-4).compose(event(rate, noise), steps)
    assert tight.get_epsilon(1e-5) == pytest.approx(pld, abs=digits(pld))


@pytest.mark.parametrize(("rate", "noise"), [(1e-4, 0.6), (0.01, 4.0), (0.3, 1.0), (0.999, 20.0), (1.0, 2.0)])
def test_the_divergence_of_a_step_is_the_reference_s_at_every_whole_order(rate: float, noise: float) -> None:
    reference = RdpAccountant(list(ORDERS)).compose(event(rate, noise)).rdp
    for order, expected in zip(ORDERS, reference, strict=True):
        # Close to 0 the reference adds 1 before it takes the logarithm, and loses what is below 1e-16.
        assert accountant.subsampled_divergence(order, rate, noise) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_noise_is_that_of_the_analytic_gaussian() -> None:
    published = {(1, 1e-5): 3.73063, (0.5, 1e-6): 8.05762, (1, 1e-6): 4.22468, (3, 1e-6): 1.54386}
    for (epsilon, delta), sigma in published.items():
        assert accountant.sigma_of(epsilon, delta) == pytest.approx(sigma, abs=5e-6)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 0.5, 1.0, 3.0, 10.0, 60.0])
@pytest.mark.parametrize("delta", [1e-17, 1e-9, 1e-6, 1e-2])
def test_epsilon_and_noise_are_each_other_s_inverse(epsilon: float, delta: float) -> None:
    sigma = accountant.sigma_of(epsilon, delta)
    back = accountant.epsilon_of_sigma(sigma, delta)
    assert back == pytest.approx(epsilon, rel=1e-5)
    assert accountant._delta_of(sigma, epsilon) <= delta
    assert accountant._delta_of(sigma, back) <= delta


def test_noise_that_hides_nothing_and_noise_that_hides_all() -> None:
    assert accountant.epsilon_of_sigma(1e-3, 1e-6) == math.inf
    assert accountant.epsilon_of_sigma(1e9, 1e-6) == 0.0
    assert accountant.epsilon_of_sigma(1e300, 1e-6) == 0.0


def test_concentrated_privacy_converts_as_in_opendp() -> None:
    assert accountant.zcdp_epsilon(0.03125, 1e-6) == pytest.approx(1.1429257, abs=5e-8)
    assert accountant.zcdp_epsilon(0.03125, 1e-5) == pytest.approx(1.01229, abs=5e-6)


def test_a_pot_of_questions_has_the_order_that_answers_the_most() -> None:
    for epsilon, order in {0.5: 40.0, 1: 22.0, 2: 12.3, 3: 8.92, 8: 4.42}.items():
        best = accountant.order_of(epsilon, 1e-6)
        assert best == pytest.approx(order, abs=0.05)
        capacity = accountant.cap(epsilon, 1e-6, best) / best
        for other in (best - 0.5, best + 0.5):
            assert accountant.cap(epsilon, 1e-6, other) / other < capacity


def test_a_pot_for_training_has_the_whole_order_of_its_run() -> None:
    order = accountant.training_order(3.0, 1e-6, rate=0.01, noise=1.1)
    steps = {each: accountant.cap(3.0, 1e-6, each) // accountant.subsampled(each, 0.01, 1.1) for each in ORDERS}
    assert steps[order] == max(steps.values()) > 1_000


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("delta", [1e-6, 1e-9])
def test_a_full_pot_has_spent_no_more_than_it_promised(epsilon: float, delta: float) -> None:
    order = accountant.order_of(epsilon, delta)
    full = accountant.cap(epsilon, delta, order)
    assert accountant.cks_epsilon([order], [full / UNIT], delta) <= epsilon + 1e-12
    # Shown a little too large, never too small: not even by what a float can't say.
    assert epsilon <= accountant.epsilon_of(full + 1, order, delta) <= epsilon + 1e-9
    assert accountant.cap(epsilon, delta, order) == full, "the same on every call"


def test_caps_are_rounded_down_and_charges_up() -> None:
    order = accountant.order_of(2.0, 1e-6)
    exact = 2.0 - (math.log1p(-1 / order) - (math.log(1e-6) + math.log(order)) / (order - 1))
    # 2^-40 is coarser than the float: below the exact value, by less than a unit and the float's own error.
    assert 0 <= exact * UNIT - accountant.cap(2.0, 1e-6, order) < 1.01
    assert accountant.charge(12.25, Fraction(1, 2**60)) == 1, "what is too small for a unit costs one"
    assert accountant.charge(2.0, Fraction(1, UNIT)) == 1
    assert accountant.charge(2.0, Fraction(1, UNIT) + Fraction(1, 2**80)) == 2
    assert accountant.charge(12.25, 0) == 0
    assert accountant.share(1, 3, 10) == 3
    assert accountant.share(5, 3, 10) == 10, "nobody has more than the pot"


def test_charges_of_many_questions_are_never_below_the_exact_sum() -> None:
    draw = random.Random(5)
    order = accountant.order_of(2.0, 1e-6)
    for _ in range(50):
        pairs = [(draw.uniform(0.1, 10), draw.uniform(1, 100)) for _ in range(draw.randint(1, 8))]
        exact = sum((Fraction(clip) / Fraction(sigma)) ** 2 for clip, sigma in pairs)
        squares = accountant.ratio(*zip(*pairs, strict=True))
        assert exact <= squares <= exact * (1 + Fraction(1, 2**60))
        # Asked apart they cost as much as together, but for the rounding of each.
        apart = sum(accountant.charge(order, accountant.ratio([clip], [sigma])) for clip, sigma in pairs)
        assert Fraction(order) * exact / 2 * UNIT <= accountant.charge(order, squares) <= apart
        assert apart < accountant.charge(order, squares) + len(pairs) + 1


def test_a_choice_costs_no_less_than_a_mechanism_of_pure_epsilon_can_tell() -> None:
    for order in (2.0, 12.25, 40.0):
        for epsilon in (0.01, 0.5, 3.0):
            # Randomised response is the mechanism of pure epsilon that tells the most.
            yes = math.exp(epsilon) / (1 + math.exp(epsilon))
            told = math.log(yes**order * (1 - yes) ** (1 - order) + (1 - yes) ** order * yes ** (1 - order))
            assert accountant.argmax(order, epsilon) >= told / (order - 1) * UNIT
            assert accountant.argmax(order, epsilon) <= epsilon * UNIT + 1


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, 1e9])
def test_what_is_no_privacy_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError):
        accountant.cap(wrong, 1e-6, 12.25)
    with pytest.raises(ValueError):
        accountant.sigma_of(1.0, wrong)
    with pytest.raises(ValueError):
        accountant.cap(1.0, 1e-6, wrong)
    if wrong != 1e9:
        with pytest.raises(ValueError):
            accountant.ratio([1.0], [wrong])
        with pytest.raises(ValueError):
            accountant.argmax(2.0, wrong)


def test_what_needs_a_square_or_a_rate_refuses_what_is_none() -> None:
    for squares in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError):
            accountant.charge(12.25, squares)
    for order, rate, noise in [(1, 0.1, 1.0), (2, 0.0, 1.0), (2, 1.1, 1.0), (2, 0.1, 0.0), (2, 0.1, math.inf)]:
        with pytest.raises(ValueError):
            accountant.subsampled_divergence(order, rate, noise)
    with pytest.raises(ValueError):
        accountant.charge(12.3, 1), "an order that the database couldn't keep"
