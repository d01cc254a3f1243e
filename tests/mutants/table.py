"""The mutants: what a tired engineer could write, and the tests that must fail if it happens. Each is one line of data.

A text is what stands in the file, once; a test is a file, or one test of it. The quicker the tests, the better: they
are run for each mutant anew.
"""

from __future__ import annotations

from tests.mutants.mutant import Mutant
from tests.mutants.singly import PEOPLE_SINGLY

KERNEL, NOISE = "apps/compute/kernel.py", "apps/compute/noise.py"
SUMS, DRAWS = "tests/property/test_kernel.py", "tests/unit/test_noise.py"


def _kernel(name: str, original: str, replacement: str, *tests: str) -> Mutant:
    return Mutant(name, KERNEL, original, replacement, tuple(f"{SUMS}::test_{test}" for test in tests), alone=True)


def _mechanism(name: str, original: str, replacement: str, *tests: str) -> Mutant:
    found = tuple(f"{SUMS}::test_{test}" for test in tests)
    return Mutant(name, "apps/compute/mechanism.py", original, replacement, found, alone=True)


def _noise(name: str, original: str, replacement: str, *tests: str) -> Mutant:
    return Mutant(name, NOISE, original, replacement, tuple(f"{DRAWS}::test_{test}" for test in tests), alone=True)


_MOVED = "no_entity_moves_the_sum_by_more_than_the_clip"
_WITHIN = "every_contribution_is_within_the_bound_and_the_sum_is_exact"
_CLIPPED = "a_contribution_is_its_clipped_sum_but_for_two_units_of_the_grid"
_DRAWN = "noise_is_drawn_once_at_the_scale_of_the_mechanism"
_LAW = "many_numbers_follow_the_exact_mass_function"
_MANY = "    if codes is not None:\n        sums, keep = _entity_sums(rows, codes, keep, how.entities), None\n"
_SCALED = "v *= most / np.maximum(norms, most)"
_CHECKED = "return np.where(squared_norms(q)[:, None] <= how.bound**2, q, 0)"
_CLIP = f"""        {_SCALED}
        v = np.clip(np.where(np.isfinite(v), v, 0.0), -how.bound, how.bound)
    q = v.astype(np.int64)  # toward zero
    {_CHECKED}
"""
_LIMBS = "made[some] = np.where(high > 2**_LIMB, 2**63 - 1, (high << _LIMB) + (low & (2**_LIMB - 1)))"
_POOL = '__import__("io").BytesIO(os.urandom(2**24))'

RELEASES = [
    _mechanism(
        "half of sigma",
        "return math.ldexp(self.sigma, -self.grid)",
        "return math.ldexp(self.sigma / 2, -self.grid)",
        _DRAWN,
    ),
    _kernel("forgotten clip", _SCALED, "pass", _CLIPPED),
    _kernel("forgotten clip, and no check in integers", _CLIP, "    q = v.astype(np.int64)\n    return q\n", _MOVED),
    _kernel(
        "clip without a check in integers", _CHECKED, "return q", "a_contribution_that_is_still_too_long_becomes_zero"
    ),
    _kernel("clip of coordinates in place of the norm", "np.square(v).sum(axis=1", "np.square(v).max(axis=1", _CLIPPED),
    _kernel(
        "rows in place of entities",
        _MANY,
        "    if codes is not None:\n"
        "        alone = msgspec.structs.replace(how, entities=len(rows))\n"
        "        made = np.zeros((how.entities, how.size), dtype=np.int64)\n"
        "        kept = (codes >= 0) & (codes < how.entities)\n"
        "        np.add.at(made, codes[kept], quantised(rows, None, keep, alone)[kept])\n"
        "        return made\n",
        "one_entity_that_owns_every_row_is_clipped_once_and_not_row_by_row",
        _MOVED,
    ),
    _kernel("mask ignored, rows with codes", "kept &= keep", "pass", _MOVED),
    _kernel(
        "mask ignored, rows without", "else np.isfinite(block) & keep[some, None]", "else np.isfinite(block)", _MOVED
    ),
    _kernel(
        "mask times what may be no number",
        "np.where(kept & np.isfinite(columns), columns, 0.0)",
        "columns * kept",
        "rows_that_are_not_kept_contribute_nothing_even_where_they_are_not_numbers",
    ),
    _kernel(
        "codes that are no entity counted as the first",
        "codes = np.where(kept, codes, 0)",
        "codes, kept = np.where(kept, codes, 0), kept | True",
        _CLIPPED,
    ),
    _kernel(
        "noise drawn twice",
        "(total + discrete_gaussian(how.scale, how.size))",
        "(total + discrete_gaussian(how.scale, how.size) + discrete_gaussian(how.scale, how.size))",
        _DRAWN,
    ),
    _kernel(
        "no noise", "(total + discrete_gaussian(how.scale, how.size))", "total", "the_spread_of_an_answer_is_sigma"
    ),
    _kernel(
        "wrapped sum of squares", _LIMBS, "made[some] = squares.sum(axis=1)", "no_sum_of_squares_wraps_into_a_small_one"
    ),
    _kernel(
        "wrapped squares",
        "np.square(np.clip(q[some], -_BEYOND, _BEYOND))",
        "np.square(q[some])",
        "no_sum_of_squares_wraps_into_a_small_one",
    ),
    _kernel("max in place of sum", "total += block.sum(axis=0)", "total += block.max(axis=0)", _WITHIN),
    _kernel(
        "sum in floats",
        "total += block.sum(axis=0)",
        "total += block.sum(axis=0, dtype=np.float64).astype(np.int64) // 2**8 * 2**8",
        _WITHIN,
    ),
    _kernel(
        "excluded entities counted",
        "block = q[some] if active is None else",
        "block = q[some] if True else",
        "blocks_are_as_good_as_one",
    ),
    _kernel(
        "floor in place of toward zero",
        "q = v.astype(np.int64)",
        "q = np.floor(v).astype(np.int64)",
        "negative_numbers_are_quantised_toward_zero_as_positive_ones_are",
    ),
    _kernel(
        "rounding in place of toward zero",
        "q = v.astype(np.int64)",
        "q = np.rint(v).astype(np.int64)",
        "negative_numbers_are_quantised_toward_zero_as_positive_ones_are",
    ),
    _kernel(
        "what is no number not zeroed, rows with codes",
        "np.where(kept & np.isfinite(columns), columns, 0.0)",
        "np.where(kept, columns, 0.0)",
        "a_number_that_is_none_counts_as_zero_and_spoils_nothing_else",
    ),
    _kernel(
        "what is no number not zeroed, sums",
        "np.where(kept, block, 0.0)",
        "np.where(kept | True, block, 0.0)",
        "a_sum_that_overflows_counts_as_zero_for_its_entity_alone",
    ),
    _kernel(
        "squares that overflow", "np.clip(v, -far, far) * 2.0", "v * 2.0", "a_huge_contribution_is_clipped_and_not_lost"
    ),
    _mechanism(
        "a finer grid than fits", "FINENESS = 31", "FINENESS = 32", "a_mechanism_keeps_its_promises_or_there_is_none"
    ),
    _mechanism(
        "sums that may wrap",
        "SUM_BITS = 62",
        "SUM_BITS = 64",
        "public_values_without_a_sound_mechanism_are_refused",
    ),
    _mechanism(
        "quantisation as large as noise",
        "SHARE = 1 / 16",
        "SHARE = 16",
        "a_mechanism_keeps_its_promises_or_there_is_none",
    ),
    Mutant(
        "half of the noise for the largest",
        KERNEL,
        "2 * sensitivity / epsilon",
        "sensitivity / epsilon",
        ("tests/unit/test_kernel_largest.py::test_the_largest_is_charged_no_less_than_an_independent_proof_asks",),
        alone=True,
    ),
    _noise(
        "pool of noise before a fork",
        "os.urandom(16 * count)",
        f'(globals().get("_pool") or globals().setdefault("_pool", {_POOL})).read(16 * count)',
        "random_bytes_are_asked_for_in_every_call",
        "the_same_bytes_make_the_same_noise_whatever_was_drawn_before",
    ),
    _noise(
        "an inherited generator",
        "os.register_at_fork(after_in_child=_Fork.note)",
        "pass",
        "a_process_forked_after_a_draw_leaves_the_inherited_generator_alone",
    ),
    _noise("half of the variance", "z * z / 2", "z * z", _LAW),
    _noise("a shift forgotten", "(y - scale * (scale / t)) / scale", "(y - scale) / scale", _LAW),
    _noise("zero drawn with two signs", "fair & ~(negative & (y == 0))", "fair", _LAW),
    _noise("noise of one sign", "np.where(negative, -y, y)[accepted]", "y[accepted]", _LAW),
    _noise(
        "a place that favours small numbers",
        "fair & ~(negative & (y == 0))",
        "~(negative & (y == 0))",
        "places_that_would_favour_small_numbers_are_refused",
    ),
    _noise(
        "floats that decide on a threshold",
        "unsure |= steps == threshold",
        "pass",
        "a_step_on_its_threshold_is_drawn_further",
    ),
    _noise(
        "floats that decide where they are close",
        "unsure |= np.abs(drawn - probability) <= MARGIN",
        "pass",
        "a_close_acceptance_is_decided_in_integers_only",
    ),
    _noise(
        "bits that were not drawn taken as zeros",
        "if self.drawn + 1 <= low:",
        "if self.drawn <= low:",
        "a_close_acceptance_is_decided_in_integers_only",
    ),
    _noise(
        "an exact branch of another law",
        "(y - scale**2 / t) ** 2 / (2 * scale**2)",
        "(y - scale**2 / t) ** 2 / scale**2",
        "floats_decide_as_integers_do",
    ),
    _noise(
        "bounds that are too tight",
        "slack = 2 * order + 8",
        "slack = -(1 << 66)",
        "bounds_of_an_exponential_are_around_it",
    ),
]

BOOKS = "tests/unit/test_budgets_ledger.py"
COSTS = "tests/unit/test_accountant.py"
FROZEN = "tests/unit/test_budgets_domains.py"
LEDGER, CHARGES, ACCOUNTANT, PRICING = (
    f"apps/budgets/{name}.py" for name in ("ledger", "books", "accountant", "pricing")
)

LEDGERS = [
    Mutant(
        "floor in place of ceil",
        ACCOUNTANT,
        "return math.ceil(Fraction(order) * Fraction(squares) / 2 * UNIT)",
        "return math.floor(Fraction(order) * Fraction(squares) / 2 * UNIT)",
        (f"{COSTS}::test_caps_are_rounded_down_and_charges_up",),
    ),
    Mutant(
        "max in place of sum",
        ACCOUNTANT,
        "total += math.ceil((Fraction(clip) / Fraction(sigma)) ** 2 * _TERM)",
        "total = max(total, math.ceil((Fraction(clip) / Fraction(sigma)) ** 2 * _TERM))",
        (f"{COSTS}::test_charges_of_many_questions_are_never_below_the_exact_sum",),
    ),
    Mutant(
        "a cap that is rounded up",
        ACCOUNTANT,
        "return max(0, math.floor((_decimal(epsilon) - _gap(order, delta) - _SLACK) * UNIT))",
        "return max(0, math.ceil((_decimal(epsilon) - _gap(order, delta) + _SLACK) * UNIT))",
        (f"{COSTS}::test_caps_are_rounded_down_and_charges_up",),
    ),
    Mutant(
        "cache key without constants",
        PRICING,
        "given = question._asdict() | {",
        'given = question._asdict() | {"program": "", "details": {}} | {',
        (f"{BOOKS}::test_the_very_same_question_is_answered_from_the_store_and_no_other_is",),
    ),
    Mutant(
        "a draw by a worker thought dead",
        LEDGER,
        "state=State.CHARGED, attempt=attempt)",
        "state=State.CHARGED)",
        (f"{BOOKS}::test_a_worker_that_was_thought_dead_cannot_keep_a_second_draw",),
    ),
    Mutant(
        "an answer before its head is on the disk",
        LEDGER,
        "    outside.make_durable(found.seq, found.hash)\n",
        "",
        (FROZEN,),
    ),
    Mutant(
        "a ledger that was set back goes on",
        CHARGES,
        "            outside.check(*self._written)\n",
        "            pass\n",
        (FROZEN,),
    ),
    Mutant(
        "a pot without those who are charged at the same time",
        CHARGES,
        "            self._pots[pot].spent += amount\n",
        "            pass\n",
        (f"{BOOKS}::test_those_who_are_charged_together_share_what_is_left",),
    ),
    Mutant(
        "a seal without what a choice beside it costs everybody",
        CHARGES,
        "                self._pots[pot].uniform = uniform + booked.uniform\n",
        "                pass\n",
        (
            "tests/unit/test_charged_together_singly.py"
            "::test_nobody_is_charged_beyond_their_account_by_a_choice_in_the_same_group",
        ),
    ),
    Mutant(
        "an allowance without those who are charged at the same time",
        CHARGES,
        "        self._used.update({(pot, payer, period): amount for pot, payer, period, amount in paid})\n",
        "",
        (f"{BOOKS}::test_those_who_are_charged_together_share_what_is_left",),
    ),
    Mutant(
        "an allowance without what was used",
        CHARGES,
        "return max(0, min(payer.most - used, self._pots[payer.pot].room(self._now)))",
        "return max(0, min(payer.most, self._pots[payer.pot].room(self._now)))",
        (f"{BOOKS}::test_a_grant_is_used_up_by_all_who_share_it_and_by_nobody_else",),
    ),
]
"""Of the ledger, T4."""

PEOPLE = "tests/unit/test_private_people.py"
PROGRAMS = [
    Mutant(
        "mask before map: null records that count",
        "apps/compute/private.py",
        "kernel.release(rows, codes, keep, mechanism_of(base, unit), active)",
        "kernel.release(rows, codes, None, mechanism_of(base, unit), active)",
        (f"{PEOPLE}::test_null_records_contribute_nothing_after_every_map",),
    ),
    Mutant(
        "answer before charge",
        "apps/compute/release.py",
        "    bill = await drawing.paid(",
        "    await worker.ask(Draw(0, value, 8.0, weighed.clips, str(path)))\n    bill = await drawing.paid(",
        (f"{PEOPLE}::TestCharging::test_a_charge_is_there_before_anything_is_drawn",),
    ),
    Mutant(
        "clips that were not charged for",
        "apps/compute/private.py",
        "if [base.norm * base.most for base in found] != clips:",
        "if False:",
        (f"{PEOPLE}::test_what_was_charged_for_other_clips_is_not_drawn",),
    ),
]
"""Of whole programs, T4."""

MUTANTS = [*RELEASES, *LEDGERS, *PROGRAMS, *PEOPLE_SINGLY]
"""All of them, by what they endanger."""
