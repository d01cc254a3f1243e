"""Mutants of what charges people each by itself, T4. Form and rules as in `table`."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SINGLY, VECTORS, COSTING = "tests/unit/test_private_individual.py", "apps/compute/vector.py", "apps/compute/costs.py"


def _single(name: str, file: str, original: str, replacement: str, test: str) -> Mutant:
    return Mutant(name, file, original, replacement, (f"{SINGLY}::test_{test}",))


def _replay(name: str, file: str, original: str, replacement: str, test: str) -> Mutant:
    found = (f"tests/property/test_individual.py::test_{test}",)
    return Mutant(name, file, original, replacement, found, alone=True)


_BOUNDED = "a_replay_is_the_sum_of_all_charges_and_never_beyond_the_limit"
_EXACT = "a_charge_is_the_exact_one_rounded_up"
_LITTLE = "who_contributes_little_is_answered_for_when_others_have_nothing_left"
_DISK = "what_was_sealed_is_on_the_disk_before_it_is_charged"
PEOPLE_SINGLY = [
    _replay(
        "s not charged while skipping the test",
        VECTORS,
        "[total, new, *bits]",
        "[total * np.uint64(account.tested), new, *bits]",
        "people_are_charged_while_the_test_is_skipped",
    ),
    _replay(
        "a test without what was charged before",
        VECTORS,
        "before[some] + total[some] <= limit",
        "total[some] <= limit",
        _BOUNDED,
    ),
    _replay(
        "a test without what all were charged", VECTORS, "account.limit - account.uniform", "account.limit", _BOUNDED
    ),
    _replay(
        "max in place of sum",
        VECTORS,
        "total[at] + np.minimum(costs[some], worst)",
        "np.maximum(total[at], costs[some])",
        _BOUNDED,
    ),
    _replay(
        "records that number the same people anew",
        VECTORS,
        "account.tested or len(new) > 0",
        "account.tested",
        "answers_about_known_people_need_not_wait_for_each_other",
    ),
    _replay(
        "a digest that can be guessed",
        VECTORS,
        "Head(os.urandom(32),",
        "Head(bytes(32),",
        "two_records_of_one_content_have_two_names",
    ),
    _replay(
        "a cache of another ledger",
        VECTORS,
        "head.applied > len(log) or log[head.applied - 1] != head.last",
        "head.applied > len(log)",
        "a_cache_of_another_ledger_is_not_believed",
    ),
    _replay("floor in place of ceil, small shifts", COSTING, "shifted + (rest > 0)", "shifted", _EXACT),
    _replay("floor in place of ceil, large shifts", COSTING, "(high >> down) + (rest > 0)", "high >> down", _EXACT),
    _replay("a carry forgotten", COSTING, "high = n1 * m1 + (middle >> limb)", "high = n1 * m1", _EXACT),
    _single(
        "charge without fsync",
        "apps/compute/drawing.py",
        "    await asyncio.to_thread(sync, file)\n",
        "",
        _DISK,
    ),
    _single(
        "a record whose name is not on the disk",
        "apps/budgets/records.py",
        "    os.replace(sealed.file, records / sealed.digest)\n    sync(records)\n",
        "    os.replace(sealed.file, records / sealed.digest)\n",
        _DISK,
    ),
    _single(
        "a record on another state of the pot",
        "apps/budgets/accounts.py",
        "sealed.header != pot.spent",
        "False",
        "an_answer_that_came_first_makes_the_other_seal_again",
    ),
    _single(
        "a failure that is free",
        "apps/compute/drawing.py",
        "                await in_database(spending.fail, token, weighed, wanted, key)\n",
        "",
        "a_seal_that_fails_is_charged_to_everybody_and_tells_one_text",
    ),
    _single(
        "who has nothing left counted",
        "apps/compute/private.py",
        "mechanism_of(base, unit), active)",
        "mechanism_of(base, unit))",
        _LITTLE,
    ),
    _single(
        "max in place of sum over the sums of one version",
        "apps/compute/sealing.py",
        "np.minimum(before + cost,",
        "np.minimum(np.maximum(before, cost),",
        "several_sums_are_charged_together",
    ),
    _single(
        "a choice that some cannot pay",
        "apps/budgets/accounts.py",
        "    if question.mechanism != GAUSSIAN:\n        if beyond:",
        "    if question.mechanism != GAUSSIAN:\n        if False:",
        "a_choice_costs_everybody_alike_and_is_refused_when_some_may_have_nothing_left",
    ),
]
