"""A log that was set back is accepted loudly or not at all: no other way makes it whole, and nothing is hidden."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client

from apps.audit import head as outside
from apps.audit import triggers
from apps.audit.models import AuditEvent
from apps.audit.queries import head_problem, set_backs, verify
from apps.audit.restored import accept
from apps.core import keys
from gridclient.wire.errors import ConflictError, InvalidInputError
from tests.factories.people import People
from tests.unit.test_audit_log import no_guard, sql, write

__all__ = ["no_guard"]
pytestmark = pytest.mark.django_db(transaction=True)


def set_back(to: int) -> outside.Head:
    """Put the log back to its first `to` events, as a restored copy has them; the head that was lost."""
    kept = outside.read()
    assert kept is not None
    triggers.GUARD.remove(connection)
    sql("DELETE FROM audit_audittext WHERE event_id > %s", to)
    sql("DELETE FROM audit_auditevent WHERE seq > %s", to)
    sql("UPDATE audit_audithead SET seq = %s, hash = (SELECT hash FROM audit_auditevent WHERE seq = %s)", to, to)
    triggers.GUARD.install(connection)
    return kept


def test_whole_log_has_nothing_to_accept() -> None:
    assert head_problem() == ""
    write()
    assert head_problem() == ""
    with pytest.raises(ConflictError, match="not set back"):
        accept(reason="A test.", by=None)


def test_set_back_log_stays_broken_until_it_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    write(9)
    lost = set_back(5)
    assert "names event 9" in head_problem()
    with caplog.at_level(logging.CRITICAL):
        write(2)
    assert "head kept outside" in caplog.text
    assert not verify()
    assert outside.read() == lost  # the evidence stays
    # The log grew past the number of the head that it lacks: another event has that number now.
    write(4)
    assert "not the one" in head_problem()
    assert not verify()


def test_accepted_log_goes_on_and_tells_of_it_for_ever() -> None:
    write(9)
    lost = set_back(5)
    event = accept(reason="Backup of Monday; the disk was lost.", by=None, operator="root")
    assert event.target == f"head:9:{lost.hash}"
    assert event.payload is not None
    assert event.payload["reason"] == "Backup of Monday; the disk was lost."
    assert event.payload["lost"] == {"seq": 9, "hash": lost.hash, "signature": lost.signature}
    report = verify()
    assert report.ok
    assert "which had at least 9, are lost" in report.problem
    kept = outside.read()
    assert kept is not None
    assert (kept.seq, kept.hash) == (event.seq, event.hash)
    write(10)
    report = verify()
    assert report.ok
    assert "at least 9" in report.problem
    kept = outside.read()
    assert kept is not None
    assert kept.seq == 16


def test_the_acceptance_itself_cannot_be_cut_off() -> None:
    write(9)
    set_back(5)
    accept(reason="A test.", by=None)
    set_back(5)
    assert not verify()
    assert "names event 6" in head_problem()


def test_a_changed_log_is_not_accepted(no_guard: None) -> None:
    write(9)
    set_back(5)
    triggers.GUARD.remove(connection)
    sql("UPDATE audit_auditevent SET target = 'x' WHERE seq = 3")
    with pytest.raises(ConflictError, match="changed"):
        accept(reason="A test.", by=None)
    assert not set_backs().exists()


def test_a_foreign_head_is_not_accepted() -> None:
    write(5)
    outside.anchor(outside.Head(9, "0" * 64, keys.sign("another domain", b"0" * 64)))
    with pytest.raises(ConflictError, match="signed"):
        accept(reason="A test.", by=None)


def test_a_reason_is_asked_for() -> None:
    write(9)
    set_back(5)
    with pytest.raises(InvalidInputError):
        accept(reason=" ", by=None)


def test_a_rolled_back_acceptance_leaves_the_evidence() -> None:
    write(9)
    lost = set_back(5)

    def accept_and_fail() -> None:
        with transaction.atomic():
            accept(reason="A test.", by=None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        accept_and_fail()
    assert outside.read() == lost


def test_commands_say_what_happened_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    write(9)
    set_back(5)
    with pytest.raises(SystemExit):
        call_command("verify_audit")
    assert "accept_restored_audit" in capsys.readouterr().err
    call_command("accept_restored_audit", reason="Backup of Monday.")
    assert "at least 9" in capsys.readouterr().err
    call_command("verify_audit")
    told = capsys.readouterr()
    assert "whole: 6 events" in told.out
    assert "BUT" in told.err and "at least 9" in told.err
    with pytest.raises(CommandError, match="nothing to accept"):
        call_command("accept_restored_audit", reason="Again.")


def test_console_tells_who_reads_the_log_before_and_after(people: People) -> None:
    write(9)
    set_back(5)
    auditor, scientist = Client(), Client()
    auditor.force_login(people.auditor)
    scientist.force_login(people.scientist)
    assert b"The audit log is not whole" in auditor.get("/admin/").content
    accept(reason="A test.", by=None)
    page = auditor.get("/admin/").content
    assert b"is not whole" not in page
    assert b"The audit log was set back" in page
    assert b"audit log" not in scientist.get("/admin/").content.replace(b"The audit log has everything", b"")


def test_no_file_beside_the_head_is_left(tmp_path: Path) -> None:
    write(9)
    set_back(5)
    accept(reason="A test.", by=None)
    (only,) = Path(outside.FILE.path()).parent.glob("audit.head*")
    assert only.stat().st_mode & 0o077 == 0
    assert AuditEvent.objects.count() == 6
