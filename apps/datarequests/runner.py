"""Runs approved requests: the stored program again, in a worker of its own, without client or session.

One request at a time, oldest first. At start everything approved and unanswered is picked up, so that an approval
outlives the process that recorded it. Where several processes serve one node, one of them runs requests and another
takes over when it ends (`gridsite.lifespan`); of two answers the first would be kept.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError

from apps.compute import release
from apps.compute.messages import Bind, Load, Loaded, Proposal, Propose, State
from apps.compute.sessions import limits, usable
from apps.compute.workers import Worker, Workers
from apps.core.database import in_database
from apps.core.locks import OwnFolder
from apps.core.wake import forget, listen
from apps.datarequests import actions
from apps.datarequests.models import DataRequest
from apps.datarequests.queries import unanswered
from apps.datasets.assets import MOCK, AssetSpec
from apps.datasets.models import DatasetVersion
from apps.datasets.queries import asset_spec
from gridclient.program.graph import ASSET, decode_program
from gridclient.wire.errors import ConflictError, InternalError

logger = logging.getLogger(__name__)

FAILED = "This request was approved, but its program did not run to its end here. The node's operator can say more."
"""The same for every reason: a failure must not tell anything about private values."""
RETRY_SECONDS = 5.0
WORKERS_TRIED = 3
"""Workers that one run may take: what killed the last may have been the machine, short of memory, not its program."""
LOOK_AGAIN = 15.0


@dataclass(frozen=True, slots=True)
class Job:
    """An approved request with all that its worker must know."""

    request: DataRequest
    assets: list[AssetSpec]


async def run(workers: Workers) -> None:
    """Answer approved requests until cancelled: those that are there, then those that an approval wakes us for.

    It also looks by itself now and then: what wakes it in another process may be lost.
    """
    event = listen("requests")
    again = True
    try:
        while True:
            event.clear()
            try:
                for key in await in_database(_pending, again):
                    await answer(workers, key)
                again = False
            except DatabaseError as error:
                logger.warning("The queue cannot be read (%s); trying again.", type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), LOOK_AGAIN)
    finally:
        forget("requests", event)


async def answer(workers: Workers, key: UUID) -> None:
    """Run one approved request and store its answer, or note that it failed. Nothing where that has been done."""
    folder = Path(settings.GRID_STORAGE_DIR) / "sessions" / f"request-{key}"
    own = OwnFolder(folder)
    try:
        job = await in_database(_job, key)
        if job is not None:
            await _run(workers, job, folder)
    except DatabaseError:
        raise
    except Exception as error:
        # The text of an error may quote what a program met; its kind is enough to look further.
        logger.warning("Approved request %s failed: %s.", key, type(error).__name__)
        await in_database(_fail, key)
    finally:
        own.remove()


async def _run(workers: Workers, job: Job, folder: Path) -> None:
    """Answer it with a worker of its own, or with the next where that one crashes or none can be started."""
    for left in reversed(range(WORKERS_TRIED)):
        worker: Worker | None = None
        try:
            worker = await workers.open(folder.name, limits(), folder)
            await _execute(worker, job, folder / "answer")
            return
        except InternalError:
            if not left or (worker is not None and worker.alive):
                raise
        finally:
            if worker is not None:
                worker.kill()


async def _execute(worker: Worker, job: Job, path: Path) -> None:
    request = job.request
    for spec in job.assets:
        worker.send(Bind(spec))
    constants = request.constants_file
    loaded = await worker.ask(Load(1, bytes(request.program), str(constants or "")))
    if not isinstance(loaded, Loaded) or len(loaded.results) != max(1, len(request.names)):
        raise InternalError("The stored program could not be loaded.")
    state = State(request.module, request.names, loaded.results)
    target = state if request.kind == "state" else loaded.results[0]
    proposal = await worker.ask(Propose(2, target))
    if not isinstance(proposal, Proposal) or proposal.program_hash != request.program_hash:
        raise ConflictError("The stored program is not the one that was approved.")
    answered = await release.approved(worker, target, proposal, user=request.requester, path=path)
    await in_database(_store, request, answered, path)


def _pending(again: bool) -> list[UUID]:
    return list(unanswered(again=again).values_list("pk", flat=True))


def _job(key: UUID) -> Job | None:
    """None where another process was faster: there is no program any more, nor a need for it."""
    request = unanswered(again=True).select_related("requester").filter(pk=key).first()
    if request is None:
        return None
    read = {tuple(node.args) for node in decode_program(request.program).nodes if node.op == ASSET}
    for dataset, number, part in read:
        if part == MOCK:  # nobody decides about it: it must still be there for the requester
            usable(request.requester, dataset, number, part)
    named = {(dataset, number) for dataset, number, _ in read}
    versions = [DatasetVersion.objects.get(dataset=dataset, number=number) for dataset, number in sorted(named)]
    return Job(request, [asset_spec(version) for version in versions])


def _store(request: DataRequest, answered: release.Answered, path: Path) -> None:
    if answered.data is not None:
        path.write_bytes(answered.data)
    actions.store_answer(request, header=answered.header, kind=answered.kind, path=path)


def _fail(key: UUID) -> None:
    actions.mark_failed(DataRequest.objects.get(pk=key), FAILED)
