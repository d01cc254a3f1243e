"""A mutant whose text or test has gone guards nothing, and nobody would see it until the next `make mutants`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.name}")
def test_every_mutant_still_has_its_place_and_its_tests(mutant: Mutant) -> None:
    sound = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert sound.count(mutant.original) == 1
    compile(sound.replace(mutant.original, mutant.replacement), mutant.file, "exec")
    for test in mutant.tests:
        file, *names = test.split("::")
        assert not names or f"def {names[-1]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_no_two_mutants_of_a_file_have_one_name() -> None:
    assert len({(mutant.file, mutant.name) for mutant in MUTANTS}) == len(MUTANTS)
