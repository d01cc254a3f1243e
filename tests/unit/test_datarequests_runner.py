"""Approved requests run by themselves, in real workers: without the client, after a restart, no other program."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from safetensors.numpy import save_file

from apps.audit.models import AuditEvent
from apps.compute.workers import Worker, Workers
from apps.core.database import in_database
from apps.datarequests import actions, runner
from apps.datarequests.models import DataRequest
from apps.datarequests.queries import answer_of
from apps.permissions.actions import give, revoke
from apps.permissions.models import Grant
from gridclient.program.graph import (
    Node,
    Program,
    Ref,
    asset,
    constant,
    encode_program,
    program_hashes,
    result_hash,
    tensor_digest,
)
from tests.factories.people import People
from tests.factories.queue import WEIGHTS, publish, submit

pytestmark = pytest.mark.django_db(transaction=True)


def go(work: Callable[[Workers], Awaitable[None]]) -> None:
    """Run with a pool of workers, as the process does."""

    async def main() -> None:
        workers = Workers()
        try:
            await work(workers)
        finally:
            await workers.close()

    asyncio.run(main())


async def until(workers: Workers, condition: Callable[[], bool], *, before: Callable[[], object] | None = None) -> None:
    """Let the runner run until `condition`; `before` happens once it waits."""
    task = asyncio.create_task(runner.run(workers))
    try:
        if before is not None:
            await asyncio.sleep(0.2)
            await in_database(before)
        async with asyncio.timeout(60):
            while not await in_database(condition):
                assert not task.done()
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def value(request: DataRequest) -> float:
    answer = answer_of(DataRequest.objects.get(pk=request.pk))
    assert answer.data is not None and answer.header.dtype == "float64"
    return float(struct.unpack("<d", answer.data)[0])


def test_an_approval_wakes_the_runner_and_the_stored_program_gives_the_answer(people: People) -> None:
    request = submit(people.scientist, publish(people.owner))

    def approve() -> None:
        actions.approve(request, reason="Fine.", by=people.owner)

    def answered() -> bool:
        return DataRequest.objects.filter(pk=request.pk, answered_at__isnull=False).exists()

    go(lambda workers: until(workers, answered, before=approve))
    assert value(request) == pytest.approx(WEIGHTS.sum())
    assert AuditEvent.objects.filter(verb="request_answered", target=f"request:{request.pk}").count() == 1
    assert not list((Path(settings.GRID_STORAGE_DIR) / "sessions").iterdir())


def test_what_was_approved_before_a_restart_is_answered_after_it(people: People) -> None:
    dataset = publish(people.owner)
    requests = [submit(people.scientist, dataset) for _ in range(2)]
    for request in requests:
        actions.approve(request, reason="Fine.", by=people.owner)

    def answered() -> bool:
        return DataRequest.objects.filter(answered_at__isnull=False).count() == 2

    go(lambda workers: until(workers, answered))
    assert [value(request) for request in requests] == [pytest.approx(WEIGHTS.sum())] * 2


def test_constants_and_the_approved_version_are_those_of_the_request(people: People, tmp_path: Path) -> None:
    dataset = publish(people.owner)
    factor = np.array([[2.0, 0.0]])
    digest = tensor_digest("float64", factor.shape, factor.tobytes())
    nodes = [
        asset(0, str(dataset.pk), 1),
        constant(1, digest),
        Node(2, "aten::mul.Tensor", [Ref(0), Ref(1)]),
        Node(3, "aten::sum", [Ref(2)]),
    ]
    save_file({digest: factor}, tmp_path / "constants")
    request = submit(
        people.scientist,
        dataset,
        program=encode_program(Program(nodes, [Ref(3)])),
        program_hash=result_hash([Ref(3)], program_hashes(nodes)),
        constants_file=tmp_path / "constants",
        label="tainted",
    )
    actions.approve(request, reason="Fine.", by=people.owner)
    go(lambda workers: runner.answer(workers, request.pk))
    assert value(request) == pytest.approx(2 * WEIGHTS[:, 0].sum())


def test_a_request_that_another_process_has_answered_is_left_alone(people: People, caplog: Any) -> None:
    request = submit(people.scientist, publish(people.owner))
    actions.approve(request, reason="Fine.", by=people.owner)
    go(lambda workers: runner.answer(workers, request.pk))
    first = value(request)
    go(lambda workers: runner.answer(workers, request.pk))
    request.refresh_from_db()
    assert (value(request), request.failures, caplog.messages) == (first, 0, [])


def test_workers_that_are_killed_from_outside_cost_no_requester_the_answer(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = submit(people.scientist, publish(people.owner))
    actions.approve(request, reason="Fine.", by=people.owner)
    opened, forked = [], Workers.open

    async def open_and_kill(workers: Workers, *given: Any) -> Worker:
        opened.append(worker := await forked(workers, *given))
        if len(opened) < runner.WORKERS_TRIED:
            os.kill(worker.pid, signal.SIGKILL)
        return worker

    monkeypatch.setattr(Workers, "open", open_and_kill)
    go(lambda workers: runner.answer(workers, request.pk))
    assert value(request) == pytest.approx(WEIGHTS.sum())
    assert len(opened) == runner.WORKERS_TRIED
    assert AuditEvent.objects.filter(verb="request_answered", target=f"request:{request.pk}").count() == 1


def failed(request: DataRequest) -> bool:
    request.refresh_from_db()
    return (request.state, request.failure, request.answered_at) == ("approved", runner.FAILED, None)


def test_another_program_than_the_approved_one_does_not_run(people: People) -> None:
    request = submit(people.scientist, publish(people.owner))
    actions.approve(request, reason="Fine.", by=people.owner)
    DataRequest.objects.filter(pk=request.pk).update(program_hash="0" * 64)
    go(lambda workers: runner.answer(workers, request.pk))
    assert failed(request)


def test_a_grant_revoked_after_the_approval_stops_the_answer(people: People) -> None:
    request = submit(people.scientist, publish(people.owner))
    actions.approve(request, reason="Fine.", by=people.owner)
    Grant.objects.filter(request_id=request.pk).update(revoked_at=request.created)
    go(lambda workers: runner.answer(workers, request.pk))
    assert failed(request)


def test_mock_data_that_were_taken_away_do_not_leave_with_an_answer(people: People) -> None:
    dataset, hidden = publish(people.owner), publish(people.owner, "Hidden births", visibility="granted")
    grant = give(hidden, to=people.scientist, right="compute", reason="A study.", by=people.owner)
    nodes = [
        asset(0, str(dataset.pk), 1),
        Node(1, "grid::asset", [str(hidden.pk), 1, "mock"]),
        Node(2, "aten::sum", [Ref(1)]),
        Node(3, "aten::add.Tensor", [Ref(0), Ref(2)]),
    ]
    program, name = encode_program(Program(nodes, [Ref(3)])), result_hash([Ref(3)], program_hashes(nodes))
    named = {"program": program, "program_hash": name, "label": "rows", "shape": list(WEIGHTS.shape)}
    first, second = (submit(people.scientist, dataset, **named) for _ in range(2))
    for request in (first, second):
        actions.approve(request, reason="Fine.", by=people.owner)
    go(lambda workers: runner.answer(workers, first.pk))
    first.refresh_from_db()
    assert first.answered_at is not None
    revoke(grant, by=people.owner)
    go(lambda workers: runner.answer(workers, second.pk))
    assert failed(second)


def test_a_failure_says_nothing_and_does_not_stop_the_queue(people: People, caplog: pytest.LogCaptureFixture) -> None:
    dataset = publish(people.owner)
    broken, good = submit(people.scientist, dataset, program=b"\xc1 4711"), submit(people.scientist, dataset)
    for request in (broken, good):
        actions.approve(request, reason="Fine.", by=people.owner)

    def answered() -> bool:
        return DataRequest.objects.filter(pk=good.pk, answered_at__isnull=False).exists()

    go(lambda workers: until(workers, answered))
    assert failed(broken) and broken.failures == 1
    assert "4711" not in caplog.text
    go(lambda workers: until(workers, lambda: DataRequest.objects.filter(pk=broken.pk, failures=2).exists()))
    assert failed(broken)
