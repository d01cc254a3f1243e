"""Whoever changes the books, with the database's password and without the triggers, is found out."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.db import connection

from apps.budgets import ledger
from apps.budgets.models import Release
from apps.budgets.outside import FILE
from apps.budgets.triggers import GUARD
from apps.budgets.verification import verify
from apps.core.heads import Head
from tests.factories.budgets import NOW, answer, ask
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db(transaction=True)


def fill(people: People) -> None:
    births = publish(people.owner)
    for number in range(4):
        ask(people.scientist, births, f"{number}")
    ask(people.reviewer, births, "quarter", epsilon=0.25, allowed=0.25, grant=2)
    ledger.delivered(answer(Release.objects.get(seq=1)))
    ledger.answered(Release.objects.get(seq=2), ledger.attempt(Release.objects.get(seq=2), now=NOW),
                    data=b"", dtype="float64", shape=[0])  # fmt: skip
    ledger.void(Release.objects.get(seq=3), "The worker failed.")


def test_a_whole_ledger_says_how_long_it_is(people: People) -> None:
    assert verify() and verify().releases == 0
    fill(people)
    assert verify() and (verify().releases, verify().frozen) == (5, ())
    out = io.StringIO()
    call_command("verify_ledger", stdout=out, stderr=io.StringIO())
    assert out.getvalue() == "The ledger is whole: 5 releases.\n"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE budgets_pot SET spent = spent - 1 WHERE spent > 0", "add up"),
        ("UPDATE budgets_pot SET cap = cap * 2", "the cap of pot"),
        ("UPDATE budgets_charge SET amount = amount - 1", "its hash does not fit"),
        ("UPDATE budgets_allowance SET used = used - 1", "allowances do not add up"),
        ("DELETE FROM budgets_allowance", "allowances do not add up"),
        ("UPDATE budgets_release SET question = '{}' WHERE seq = 2", "release 2 was changed"),
        ("UPDATE budgets_release SET paid = '[]' WHERE seq = 2", "release 2 was changed"),
        ("UPDATE budgets_release SET program = 'x' WHERE seq = 2", "names another program"),
        ("UPDATE budgets_release SET event = 1 WHERE seq = 2", "does not tell of release 2"),
        ("UPDATE budgets_release SET key = 'x' WHERE seq = 2", "release 2 was changed"),
        ("UPDATE budgets_ledgerhead SET seq = 4", "head row"),
        ("DELETE FROM budgets_ledgerhead", "head row"),
        (
            "DELETE FROM budgets_charge WHERE release_id IN (SELECT id FROM budgets_release WHERE seq = 5);"
            "DELETE FROM budgets_release WHERE seq = 5;"
            "UPDATE budgets_ledgerhead SET seq = 4, hash = (SELECT hash FROM budgets_release WHERE seq = 4);",
            "add up",
        ),
    ],
)
def test_changed_books_are_found_out(people: People, statement: str, words: str) -> None:
    fill(people)
    GUARD.remove(connection)
    try:
        with connection.cursor() as cursor:
            for each in filter(None, statement.split(";")):
                cursor.execute(each)
    finally:
        GUARD.install(connection)
    report = verify()
    assert not report and words in report.problem
    err = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("verify_ledger", stdout=io.StringIO(), stderr=err)
    assert words in err.getvalue()


def test_a_cut_tail_whose_books_were_made_to_fit_lacks_the_outside_head(people: People) -> None:
    fill(people)
    FILE.anchor(Head(9, *FILE.read()[1:]))  # type: ignore[index]
    assert "names release 9" in verify().problem


def test_a_head_of_somebody_else_is_no_proof(people: People) -> None:
    fill(people)
    FILE.anchor(Head(5, Release.objects.get(seq=5).hash, "0" * 128))
    assert "not signed" in verify().problem
