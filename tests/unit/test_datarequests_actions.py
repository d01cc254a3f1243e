"""The queue, verb by verb: what is decided stays decided, what was answered stays the same answer."""

from __future__ import annotations

import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.accounts.actions import deactivate
from apps.audit.models import AuditEvent
from apps.audit.queries import verify
from apps.core.clock import now
from apps.datarequests import actions, policies, tidy
from apps.datarequests.models import MAX_FAILURES, MAY_RUN, DataRequest
from apps.datarequests.queries import (
    HIDDEN,
    answer_of,
    requests_i_may_decide,
    requests_visible_to,
    unanswered,
    visible_inputs,
    words_for,
)
from apps.datasets.models import Dataset
from apps.permissions.models import Grant
from gridclient.wire.errors import (
    ConflictError,
    GridError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    NotPermittedError,
    RequestDeniedError,
    RequestPendingError,
)
from gridclient.wire.messages import TensorHeader
from tests.factories.people import People
from tests.factories.queue import publish, submit

pytestmark = pytest.mark.django_db
HEADER = TensorHeader("float64", [], 8)


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


@pytest.fixture
def request_(people: People, births: Dataset) -> DataRequest:
    return submit(people.scientist, births)


def answer_file(folder: Path, value: float = 1.5) -> Path:
    path = folder / "value"
    path.write_bytes(struct.pack("<d", value))
    return path


def approved(request: DataRequest, people: People) -> DataRequest:
    return actions.approve(request, reason="Fine.", by=people.owner)


def verbs() -> list[str]:
    return [str(event.verb) for event in AuditEvent.objects.order_by("seq")]


def test_a_request_goes_through_the_queue_and_leaves_its_trace(
    people: People, request_: DataRequest, tmp_path: Path, django_capture_on_commit_callbacks: Any
) -> None:
    with pytest.raises(RequestPendingError):
        policies.check_can_fetch(people.scientist, request_)
    approved(request_, people)
    request_.refresh_from_db()
    with pytest.raises(RequestPendingError):
        policies.check_can_fetch(people.scientist, request_)
    assert actions.store_answer(request_, header=HEADER, kind="tensor", path=answer_file(tmp_path))
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(2):
            actions.delivered(request_, to=people.scientist)
    request_.refresh_from_db()
    assert request_.state == "delivered"
    assert answer_of(request_).data == struct.pack("<d", 1.5)
    queue = [verb for verb in verbs() if verb.startswith("request_")]
    assert queue == [
        "request_submitted", "request_approved", "request_answered", "request_delivered", "request_delivered",
    ]  # fmt: skip
    assert verify()


def test_constants_travel_with_the_request(people: People, births: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "constants.safetensors"
    file.write_bytes(b"constants")
    request = submit(people.scientist, births, constants_file=file)
    assert request.constants_file is not None and request.constants_file.read_bytes() == b"constants"
    assert not file.exists()


def test_an_approval_is_bound_to_this_program_and_person(people: People, request_: DataRequest) -> None:
    approved(request_, people)
    grant = Grant.objects.get(request_id=request_.pk)
    assert (grant.user, grant.program_hash) == (people.scientist, request_.program_hash)


def test_two_decisions_at_once_are_one_decision(people: People, request_: DataRequest) -> None:
    approved(request_, people)
    with pytest.raises(ConflictError):
        actions.deny(request_, reason="No.", by=people.reviewer)
    with pytest.raises(ConflictError):
        approved(request_, people)
    with pytest.raises(ConflictError):
        actions.withdraw(request_, by=people.scientist)
    assert Grant.objects.filter(request_id=request_.pk).count() == 1


def test_a_stale_page_decides_nothing(people: People, request_: DataRequest) -> None:
    seen = request_.updated - timedelta(seconds=1)
    with pytest.raises(ConflictError):
        actions.approve(request_, reason="Fine.", by=people.owner, seen=seen)
    assert actions.approve(request_, reason="Fine.", by=people.owner, seen=request_.updated).state == "approved"


def test_the_requester_reads_why_it_was_denied(people: People, request_: DataRequest) -> None:
    with pytest.raises(InvalidInputError):
        actions.deny(request_, reason="  ", by=people.owner)
    actions.deny(request_, reason="One person stands out.", by=people.owner)
    request_.refresh_from_db()
    with pytest.raises(RequestDeniedError, match="One person stands out") as refused:
        policies.check_can_fetch(people.scientist, request_)
    assert refused.value.details == {"reason": "One person stands out."}
    assert not Grant.objects.filter(request_id=request_.pk).exists()


def test_the_first_answer_stays_for_ever(people: People, request_: DataRequest, tmp_path: Path) -> None:
    assert not actions.store_answer(request_, header=HEADER, kind="tensor", path=answer_file(tmp_path, 9.0))
    approved(request_, people)
    assert actions.store_answer(request_, header=HEADER, kind="tensor", path=answer_file(tmp_path, 1.0))
    assert not actions.store_answer(request_, header=HEADER, kind="tensor", path=answer_file(tmp_path, 2.0))
    request_.refresh_from_db()
    assert answer_of(request_).data == struct.pack("<d", 1.0)


def test_only_the_requester_receives_the_answer(people: People, request_: DataRequest, tmp_path: Path) -> None:
    approved(request_, people)
    actions.store_answer(request_, header=HEADER, kind="tensor", path=answer_file(tmp_path))
    for other in (people.owner, people.reviewer, people.auditor, people.administrator, people.stranger):
        with pytest.raises(NotPermittedError):
            actions.delivered(request_, to=other)
    assert "request_delivered" not in verbs()


def test_a_failed_run_is_told_in_a_fixed_text_and_tried_once_more(people: People, request_: DataRequest) -> None:
    approved(request_, people)
    for again in (False, True):
        assert list(unanswered(again=again)) == [request_]
        actions.mark_failed(request_, "It did not run.")
        assert not unanswered().exists()
    assert not unanswered(again=True).exists()
    request_.refresh_from_db()
    assert (request_.state, request_.failures) == ("approved", MAX_FAILURES)
    with pytest.raises(InternalError, match="It did not run"):
        policies.check_can_fetch(people.scientist, request_)


def test_who_may_decide(people: People, request_: DataRequest) -> None:
    may = {name for name in vars(people) if policies.can_approve(getattr(people, name), request_)}
    assert may == {"owner", "reviewer"}
    listed = {name for name in vars(people) if requests_i_may_decide(getattr(people, name)).exists()}
    assert listed == may


def test_who_sees_a_request(people: People, request_: DataRequest) -> None:
    sees = {name for name in vars(people) if requests_visible_to(getattr(people, name)).exists()}
    assert sees == {"owner", "scientist", "reviewer", "auditor"}


def test_nobody_decides_on_a_request_of_their_own(people: People, births: Dataset) -> None:
    other = publish(people.other_owner, "Other births")
    mine = submit(people.reviewer, births)
    for verb in (actions.approve, actions.deny):
        with pytest.raises(NotPermittedError):
            verb(mine, reason="Fine.", by=people.reviewer)
    assert not requests_i_may_decide(people.reviewer).exists()
    theirs = submit(people.owner, births, other)
    assert not policies.can_decide(people.owner, theirs)


def test_a_joint_program_needs_every_owner_or_a_reviewer(people: People, births: Dataset) -> None:
    hidden = publish(people.other_owner, "Clinic Z", visibility="granted")
    other = publish(people.other_owner, "Other births")
    joint = submit(people.scientist, births, other)
    assert not policies.can_decide(people.owner, joint) and not policies.can_decide(people.other_owner, joint)
    assert policies.can_decide(people.reviewer, joint)
    assert [list(requests_i_may_decide(who)) for who in (people.owner, people.reviewer)] == [[], [joint]]
    with pytest.raises(NotFoundError):
        submit(people.scientist, births, hidden)


def test_an_owner_does_not_learn_of_a_hidden_dataset_from_a_joint_program(people: People, births: Dataset) -> None:
    other = publish(people.other_owner, "Clinic Z")
    joint = submit(people.scientist, births, other)
    Dataset.objects.filter(pk=other.pk).update(visibility="granted")
    for who, readable in ((people.owner, False), (people.reviewer, True), (people.scientist, True)):
        row = requests_visible_to(who).get()
        visible = visible_inputs(who, [row])
        assert (other.pk in visible) is readable
        assert words_for(row, visible) == (joint.words if readable else HIDDEN)


def test_nothing_is_approved_for_an_account_that_is_closed(people: People, request_: DataRequest) -> None:
    deactivate(people.scientist, by=people.administrator)
    with pytest.raises(ConflictError):
        approved(request_, people)
    assert actions.deny(request_, reason="The account is closed.", by=people.owner).state == "denied"


def test_a_person_cannot_flood_the_queue(people: People, births: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MAX_OPEN", 2)
    first = submit(people.scientist, births)
    submit(people.scientist, births)
    with pytest.raises(LimitExceededError) as refused:
        submit(people.scientist, births)
    assert refused.value.details == {"limit": 2}
    actions.withdraw(first, by=people.scientist)
    submit(people.scientist, births)


def test_a_request_for_nothing_private_is_refused(people: People, births: Dataset) -> None:
    with pytest.raises(InvalidInputError):
        submit(people.scientist, births, inputs=[])


def test_a_refused_submission_leaves_no_row_and_no_audit(people: People, births: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        submit(people.scientist, births, constants_file=tmp_path / "missing")
    assert not DataRequest.objects.exists()
    assert "request_submitted" not in verbs()


@pytest.mark.parametrize(
    "change",
    [
        {"state": "approved"},
        {"state": "delivered"},
        {"state": "anything"},
        {"reason": ""},
        {"decision_reason": "because"},
        {"answer_kind": "tensor"},
        {"delivered_at": "2026-01-01T00:00:00Z"},
    ],
)
def test_the_database_refuses_a_row_that_no_verb_would_write(request_: DataRequest, change: dict[str, str]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        DataRequest.objects.filter(pk=request_.pk).update(**change)


def test_every_refusal_of_the_queue_is_a_typed_error(people: People, request_: DataRequest) -> None:
    for who in (people.stranger, people.other_owner, people.administrator, people.auditor, people.scientist):
        for verb in (actions.approve, actions.deny):
            with pytest.raises(GridError):
                verb(request_, reason="Fine.", by=who)
    with pytest.raises(NotPermittedError):
        actions.withdraw(request_, by=people.owner)
    request_.refresh_from_db()
    assert request_.state == "submitted"


def constants(folder: Path, nbytes: int = 1000) -> Path:
    file = folder / "constants.safetensors"
    file.write_bytes(b"c" * nbytes)
    return file


@pytest.mark.parametrize("ending", ["withdrawn", "denied", "answered", "failed"])
def test_a_request_that_never_runs_again_keeps_no_program_and_no_constants(
    people: People, births: Dataset, tmp_path: Path, django_capture_on_commit_callbacks: Any, ending: str
) -> None:
    request = submit(people.scientist, births, constants_file=constants(tmp_path))
    held = request.held_bytes
    assert held == 1000 + len(request.program) and request.may_run
    with django_capture_on_commit_callbacks(execute=True):
        match ending:
            case "withdrawn":
                actions.withdraw(request, by=people.scientist)
            case "denied":
                actions.deny(request, reason="No.", by=people.owner)
            case "answered":
                approved(request, people)
                actions.store_answer(request, header=HEADER, kind="tensor", path=answer_file(tmp_path))
            case _:
                approved(request, people)
                for _ in range(MAX_FAILURES):
                    assert request.constants_file is not None
                    actions.mark_failed(request, "It failed.")
    request.refresh_from_db()
    assert request.constants_file is None and request.held_bytes == 0
    assert request.folder.exists() is (ending == "answered")
    assert (request.words, len(request.program_hash)) == ("the sum of February births", 64)
    assert (bytes(request.program), request.may_run) == (b"", False)
    if ending == "answered":
        actions.delivered(request, to=people.scientist)
        assert answer_of(request).data == struct.pack("<d", 1.5)


def test_a_request_that_may_still_run_keeps_its_program(people: People, request_: DataRequest) -> None:
    approved(request_, people)
    actions.mark_failed(request_, "It failed.")
    request_.refresh_from_db()
    assert bytes(request_.program) and request_.may_run


def test_what_may_run_is_the_same_for_one_request_and_in_the_database(people: People, births: Dataset) -> None:
    rows = [submit(people.scientist, births) for _ in range(4)]
    actions.withdraw(rows[0], by=people.scientist)
    approved(rows[1], people)
    for count in (2, 3):
        approved(rows[count], people)
        for _ in range(count - 1):
            actions.mark_failed(rows[count], "It failed.")
    running = set(DataRequest.objects.filter(MAY_RUN))
    assert running == {row for row in DataRequest.objects.all() if row.may_run} == {rows[1], rows[2]}


def test_constants_stay_while_a_decision_can_still_fail_to_commit(
    people: People, births: Dataset, tmp_path: Path, django_capture_on_commit_callbacks: Any
) -> None:
    request = submit(people.scientist, births, constants_file=constants(tmp_path))
    with django_capture_on_commit_callbacks() as waiting:
        actions.withdraw(request, by=people.scientist)
        assert request.constants_file is not None
    assert waiting


def test_one_person_cannot_fill_the_disk_with_open_requests(
    people: People, births: Dataset, tmp_path: Path, settings: Any
) -> None:
    first = submit(people.scientist, births, constants_file=constants(tmp_path))
    settings.GRID_MAX_REQUEST_BYTES = 2 * first.held_bytes - 1
    with pytest.raises(LimitExceededError, match="withdraw one") as refused:
        submit(people.scientist, births, constants_file=constants(tmp_path))
    assert refused.value.details["limit"] == 2 * first.held_bytes - 1
    approved(first, people)
    with pytest.raises(LimitExceededError):
        submit(people.scientist, births, constants_file=constants(tmp_path))
    submit(people.reviewer, births, constants_file=constants(tmp_path))
    actions.store_answer(first, header=HEADER, kind="tensor", path=answer_file(tmp_path))
    submit(people.scientist, births, constants_file=constants(tmp_path))


def test_the_constants_of_one_request_are_bounded_as_they_are_stored(
    people: People, births: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MAX_CONSTANTS", 999)
    with pytest.raises(LimitExceededError, match="999"):
        submit(people.scientist, births, constants_file=constants(tmp_path))
    assert not DataRequest.objects.exists()


def test_files_that_belong_to_no_open_request_go_at_the_next_start(
    people: People, births: Dataset, tmp_path: Path
) -> None:
    later = now() + timedelta(hours=2)
    waiting = submit(people.scientist, births, constants_file=constants(tmp_path))
    # Withdrawn, and the process died before the files were removed: callbacks do not run in this test.
    over = submit(people.scientist, births, constants_file=constants(tmp_path))
    actions.withdraw(over, by=people.scientist)
    answered = approved(submit(people.scientist, births, constants_file=constants(tmp_path)), people)
    actions.store_answer(answered, header=HEADER, kind="tensor", path=answer_file(tmp_path))
    never = waiting.folder.with_name("0b5b39a4-8f0e-4b0c-9d43-0d1f7d7f4b11")
    never.mkdir()
    (never / "constants.safetensors").write_bytes(b"c")
    assert tidy.remove_orphans() == 0 and never.exists()
    assert tidy.remove_orphans(now=later) == 3
    assert not never.exists() and not over.folder.exists()
    assert waiting.constants_file is not None and waiting.constants_file.stat().st_size == 1000
    assert answered.constants_file is None and answered.answer_file.exists()
