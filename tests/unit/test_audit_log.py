"""The audit log: what is recorded stays, and whoever changes it is found out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.audit import head as outside
from apps.audit import triggers
from apps.audit.actions import record
from apps.audit.chain import DOMAIN, GENESIS, text_digest
from apps.audit.models import AuditEvent, AuditHead, AuditText
from apps.audit.queries import events_visible_to, head_problem, verify
from apps.audit.verbs import Verb
from apps.core import keys
from gridclient.wire.errors import InternalError

pytestmark = pytest.mark.django_db(transaction=True)

owner = SimpleNamespace(id="6f1c", username="owner")


def write(count: int = 5) -> None:
    for number in range(count):
        with transaction.atomic():
            record(Verb.VALUE_RELEASED, by=owner, target="births", number=number)


def record_and_fail() -> None:
    with transaction.atomic():
        record(Verb.SIGNED_IN, by=owner)
        raise ZeroDivisionError


@pytest.fixture
def no_guard() -> Iterator[None]:
    """Someone with the database's password has dropped the triggers."""
    triggers.GUARD.remove(connection)
    yield
    triggers.GUARD.install(connection)


def sql(statement: str, *values: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def test_what_happened_can_be_read_with_who_and_when() -> None:
    write(2)
    event = AuditEvent.objects.select_related("text").get(seq=2)
    assert (event.verb, event.actor_name, event.target, event.payload) == (
        "value_released",
        "owner",
        "births",
        {"number": 1},
    )
    assert event.previous == AuditEvent.objects.get(seq=1).hash
    assert keys.verify(keys.public_key(), DOMAIN, event.hash.encode(), event.signature)


def test_an_event_without_a_transaction_is_refused_so_none_is_recorded_for_what_failed() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        record(Verb.SIGNED_IN, by=owner)
    with pytest.raises(ZeroDivisionError):
        record_and_fail()
    assert not AuditEvent.objects.exists()
    write(1)
    assert verify()


def test_an_empty_log_is_whole() -> None:
    assert verify().ok
    assert verify().events == 0


def test_a_whole_log_verifies_and_says_how_long_it_is() -> None:
    write(7)
    report = verify()
    assert report
    assert (report.events, report.first_bad, report.problem) == (7, None, "")


def test_an_erased_text_leaves_the_proof_whole() -> None:
    write(3)
    AuditText.objects.filter(event_id=2).delete()
    assert verify()
    assert AuditEvent.objects.get(seq=2).payload is None


def test_an_erased_text_cannot_be_guessed_from_its_digest() -> None:
    with transaction.atomic():
        first = record(Verb.REQUEST_DENIED, by=owner, reason="no")
        second = record(Verb.REQUEST_DENIED, by=owner, reason="no")
    assert first.payload_digest != second.payload_digest
    text = AuditText.objects.get(event_id=first.seq)
    assert text_digest(text.salt, text.body) == first.payload_digest


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_auditevent SET target = 'x' WHERE seq = 2",
        "DELETE FROM audit_auditevent WHERE seq = 5",
        "UPDATE audit_audittext SET body = '{}' WHERE event_id = 2",
        "UPDATE audit_audithead SET seq = 3",
        "DELETE FROM audit_audithead",
    ],
)
def test_the_database_refuses_to_rewrite_history(statement: str) -> None:
    write()
    with pytest.raises(DatabaseError, match="append-only"):
        sql(statement)
    assert verify()


COLUMNS = {
    "at": "2001-01-01 00:00:00",
    "verb": "signed_in",
    "actor_id": "1",
    "actor_name": "stranger",
    "target": "other",
    "payload_digest": "0" * 64,
    "previous": "f" * 64,
    "hash": "0" * 64,
    "signature": "0" * 128,
}


@pytest.mark.parametrize("column", COLUMNS)
def test_an_edited_event_is_found(no_guard: None, column: str) -> None:
    write()
    sql(f"UPDATE audit_auditevent SET {column} = %s WHERE seq = 3", COLUMNS[column])
    report = verify()
    assert not report
    assert report.first_bad == 3


@pytest.mark.parametrize("change", ["body = '{\"number\": 9}'", "salt = 'no hex'"])
def test_an_edited_text_is_found(no_guard: None, change: str) -> None:
    write()
    sql(f"UPDATE audit_audittext SET {change} WHERE event_id = 4")
    assert verify().first_bad == 4


def cut(*numbers: int) -> None:
    AuditText.objects.filter(event_id__in=numbers).delete()
    sql(f"DELETE FROM audit_auditevent WHERE seq IN ({', '.join(map(str, numbers))})")


def set_head_back(seq: int) -> None:
    AuditHead.objects.update(seq=seq, hash=AuditEvent.objects.get(seq=seq).hash)


def test_a_deleted_middle_is_found(no_guard: None) -> None:
    write()
    cut(2, 3)
    report = verify()
    assert report.first_bad == 2
    assert report.problem == "event 2 is missing"


def test_a_deleted_tail_is_found_although_the_head_row_was_set_back(no_guard: None) -> None:
    write()
    cut(4, 5)
    set_head_back(3)
    report = verify()
    assert report.first_bad == 4
    assert "outside" in report.problem


def test_a_deleted_tail_is_still_found_after_new_events_cover_it(
    no_guard: None, caplog: pytest.LogCaptureFixture
) -> None:
    write()
    cut(4, 5)
    set_head_back(3)
    with caplog.at_level(logging.CRITICAL):
        write(4)
    assert "verify_audit" in caplog.text
    assert verify().first_bad == 5


def test_a_log_that_was_emptied_is_found(no_guard: None) -> None:
    write()
    cut(1, 2, 3, 4, 5)
    sql("DELETE FROM audit_audithead")
    assert verify().first_bad == 1


def test_a_log_signed_again_with_another_key_is_found(no_guard: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write(2)
    forger = Ed25519PrivateKey.generate()
    previous = AuditEvent.objects.get(seq=1).hash
    event = AuditEvent.objects.get(seq=2)
    event.target, event.previous = "forged", previous
    event.hash = event.computed_hash()
    event.signature = forger.sign(DOMAIN.encode() + b"\n" + event.hash.encode()).hex()
    event.save()
    AuditHead.objects.update(seq=2, hash=event.hash)
    outside.FILE.path().unlink()
    outside.advance(outside.Head(2, event.hash, event.signature), contains=lambda head: True)
    report = verify()
    assert report.first_bad == 2
    assert "signed" in report.problem


def test_rows_past_the_head_row_are_found(no_guard: None) -> None:
    write()
    set_head_back(4)
    assert verify().first_bad == 5


def test_a_lost_head_stops_recording_instead_of_starting_anew(no_guard: None) -> None:
    write()
    sql("DELETE FROM audit_audithead")
    assert "head row" in verify().problem
    with pytest.raises(InternalError, match="verify_audit"), transaction.atomic():
        record(Verb.SIGNED_IN, by=owner)


def test_a_missing_outside_head_is_reported_and_comes_back_with_the_next_event() -> None:
    write()
    outside.FILE.path().unlink()
    assert "missing" in verify().problem
    write(1)
    assert verify()


def test_the_command_tells_a_script_by_its_exit_code(no_guard: None, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    call_command("verify_audit")
    assert "5 events" in capsys.readouterr().out
    sql("UPDATE audit_auditevent SET target = 'x' WHERE seq = 2")
    with pytest.raises(SystemExit) as end:
        call_command("verify_audit")
    assert end.value.code == 1
    assert "First bad event: 2" in capsys.readouterr().err


def test_events_of_many_threads_form_one_chain() -> None:
    def write_and_close(count: int) -> None:
        write(count)
        connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write_and_close, [5] * 6))
    assert verify().events == 30
    assert outside.read() == outside.Head(*AuditEvent.objects.values_list("seq", "hash", "signature").get(seq=30))


def test_two_events_cannot_follow_the_same_one() -> None:
    write(2)
    first = AuditEvent.objects.get(seq=1)
    with pytest.raises(IntegrityError):
        AuditEvent.objects.create(seq=3, at=first.at, verb="x", previous=first.hash, hash="1" * 64)


# --- the head outside --------------------------------------------------------------------------------------------


def test_the_outside_head_follows_commits_only() -> None:
    write(2)
    with pytest.raises(ZeroDivisionError):
        record_and_fail()
    kept = outside.read()
    assert kept is not None
    assert (kept.seq, kept.hash) == (2, AuditEvent.objects.get(seq=2).hash)


def test_the_outside_head_is_written_once_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    advance = outside.advance

    def writing(head: outside.Head, **given: Any) -> outside.Head | None:
        written.append(head.seq)
        return advance(head, **given)

    monkeypatch.setattr(outside, "advance", writing)
    with transaction.atomic():
        record(Verb.SIGNED_IN, by=owner)
        with transaction.atomic():
            record(Verb.SIGNED_IN, by=owner)
        with pytest.raises(ZeroDivisionError):
            record_and_fail()
    assert max(written) == 2
    assert verify().events == 2
    written.clear()
    with transaction.atomic():
        for _ in range(20):
            record(Verb.SIGNED_IN, by=owner)
    assert written == [22]


def test_a_slower_process_does_not_set_the_outside_head_back() -> None:
    write(3)
    first = AuditEvent.objects.get(seq=1)
    outside.advance(outside.Head(1, first.hash, first.signature), contains=lambda head: True)
    kept = outside.read()
    assert kept is not None
    assert kept.seq == 3


def test_a_crash_before_the_outside_head_was_written_is_no_alarm() -> None:
    write(3)
    third = outside.FILE.path().read_bytes()
    write(2)
    outside.FILE.path().write_bytes(third)
    assert verify()
    write(1)
    kept = outside.read()
    assert kept is not None
    assert kept.seq == 6


def test_a_file_cut_short_by_a_power_cut_heals() -> None:
    write(1)
    outside.FILE.path().write_bytes(b"")
    assert not verify()
    write(1)
    assert verify()


def test_the_outside_head_is_for_this_account_only() -> None:
    write(1)
    assert outside.FILE.path().stat().st_mode & 0o077 == 0


# --- who reads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capability", "sees"), [("audit.read", 2), ("everything.read", 2), ("compute.use", 0)])
def test_only_readers_of_the_log_see_it(capability: str, sees: int) -> None:
    write(2)
    user = SimpleNamespace(has=lambda asked: asked == capability)
    assert events_visible_to(user).count() == sees
    assert events_visible_to(None).count() == 0


# --- property ----------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
payloads = st.dictionaries(
    st.from_regex(r"p_[a-z]{1,8}", fullmatch=True),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    max_size=4,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    events=st.lists(st.tuples(st.sampled_from(list(Verb)), texts, payloads), min_size=1, max_size=6),
    which=st.integers(0, 5),
    forged=st.text("abc", min_size=1),
)
def test_whatever_is_recorded_verifies_and_whatever_is_changed_is_found(
    no_guard: None, events: list[tuple[Verb, str, dict[str, object]]], which: int, forged: str
) -> None:
    with transaction.atomic():
        written = [record(verb, by=owner, target=target, **payload) for verb, target, payload in events]
    assert verify().events == AuditEvent.objects.count()
    for event, (_, _, payload) in zip(written, events, strict=True):
        assert AuditEvent.objects.get(seq=event.seq).payload == payload
    bad = written[which % len(written)]
    AuditEvent.objects.filter(seq=bad.seq).update(target=bad.target + forged)
    assert verify().first_bad == bad.seq
    AuditEvent.objects.filter(seq=bad.seq).update(target=bad.target)
    assert verify()


def test_a_log_that_was_locked_before_its_first_event_lacks_nothing() -> None:
    """A new node on PostgreSQL was never ready: it locks the log when it starts, and has no event yet."""
    AuditHead.objects.create(id=1, seq=0, hash=GENESIS)
    assert head_problem() == "" and verify().ok
    AuditHead.objects.update(seq=1, hash="ab" * 32)
    assert "is missing" in head_problem()
