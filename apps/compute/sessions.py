"""A user's session: one program that grows, one worker that runs it. The web process sees no value."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

from django.conf import settings

from apps.accounts.models import User
from apps.accounts.queries import user_of_live_token
from apps.compute import release, spending
from apps.compute.messages import (
    Append,
    Bind,
    Export,
    Exported,
    Forget,
    Proposal,
    Propose,
    PutConstant,
    PutPlan,
    Reply,
    State,
    Weigh,
    Weighed,
)
from apps.compute.spending import Wanted
from apps.compute.workers import CRASHED, Cluster, Limits, Worker, Workers
from apps.core.database import in_database
from apps.core.locks import OwnFolder
from apps.datasets.assets import AssetSpec
from apps.datasets.models import Dataset
from apps.datasets.queries import asset_spec
from apps.permissions.policies import check_can_compute
from apps.permissions.queries import datasets_visible_to
from apps.plans.policies import can_run
from apps.plans.queries import data_of, plans_visible_to
from gridclient.program.graph import ASSET, Node, Ref
from gridclient.program.plan_graph import PLAN
from gridclient.wire.errors import GridError, InternalError, InvalidInputError, NotFoundError
from gridclient.wire.messages import Constant, TensorHeader
from gridclient.wire.tensors import check_header

_DIGEST = re.compile(r"[0-9a-f]{64}")
ID_LENGTH = 36
AGAIN_AFTER = 2.0
"""Seconds after which a session begins anew that got no worker, or whose database failed."""
MOST_REFUSED = 1_000
"""Refused datasets of which a session remembers why."""


def limits() -> Limits:
    """The limits of a worker, from the settings."""
    return Limits(
        memory=settings.GRID_SESSION_MEMORY,
        value=settings.GRID_MAX_VALUE,
        flops=settings.GRID_MAX_FLOPS,
        deadline=settings.GRID_DEADLINE,
    )


def pool() -> Workers:
    """The workers of this process, on the machines that the settings name."""
    if settings.GRID_WORKERS == "forkserver":
        return Workers()
    return Workers(Cluster(settings.GRID_RAY_ADDRESS, Path(settings.GRID_STORAGE_DIR)))


@dataclass(frozen=True, slots=True)
class Exportable:
    """A program cut to one value, with what a reviewer needs to know of it. The files are the caller's to move."""

    proposal: Proposal
    exported: Exported


class Session:
    """Everything one connection may do with programs. Methods raise GridError; nothing here knows of frames."""

    def __init__(self, workers: Workers, *, caller: release.Caller, on_lost: Callable[[], None]) -> None:
        """`on_lost` is called when the worker has ended, and with it every value; not when the session is closed."""
        self.id = uuid4().hex
        self.caller = caller
        self.folder = Path(settings.GRID_STORAGE_DIR) / "sessions" / self.id
        self._workers = workers
        self._on_lost = on_lost
        self._worker: Worker | None = None
        self._own_folder: OwnFolder | None = None
        self._stopped = False
        self._opening = asyncio.Lock()
        self._bound: set[tuple[str, int, str]] = set()
        self._refused: dict[tuple[str, int], GridError] = {}
        self._plans: set[str] = set()
        self._numbers = count(1)

    @property
    def running(self) -> Worker | None:
        """Its worker, if it has one that can be asked."""
        return self._worker if self._worker is not None and self._worker.alive else None

    async def worker(self) -> Worker:
        """This session's worker, started at the first need. Raises InternalError once the session was stopped."""
        async with self._opening:
            if self._worker is None:
                self._check_goes_on()
                self._own_folder = self._own_folder or OwnFolder(self.folder)
                try:
                    self._worker = await self._workers.open(self.id, limits(), self.folder, self._on_lost)
                except InternalError:
                    # What was said meanwhile would be missing later: it is all said again, but not at once.
                    self._stopped = True
                    asyncio.get_running_loop().call_later(AGAIN_AFTER, self._on_lost)
                    raise
                if self._stopped:  # meanwhile, when there was nothing to end yet
                    self.stop()
            self._check_goes_on()
            return self._worker

    def _check_goes_on(self) -> None:
        if self._stopped:
            raise InternalError(CRASHED)

    async def append(self, nodes: Sequence[Node]) -> None:
        """Add nodes to the program. A dataset that may not be used is refused when a value of it is asked for."""
        worker = await self.worker()
        for node in nodes:
            if node.op == ASSET:
                await self._bind(worker, node)
            elif node.op == PLAN:
                await self._use(worker, node)
        worker.send(Append(list(nodes)))
        await worker.drain()

    async def _bind(self, worker: Worker, node: Node) -> None:
        match node.args:
            case [str() as dataset, int() as version, "values" | "mock" as part] if 0 < version < 2**31:
                pass
            case _:
                raise InvalidInputError("An asset is named by dataset id, version and part ('values' or 'mock').")
        if (dataset, version, part) in self._bound or len(dataset) != ID_LENGTH:
            return  # what is no id is not there for the worker either, and nothing to remember
        try:
            spec = await in_database(_asset, self.caller.token, dataset, version, part)
        except GridError as error:
            if len(self._refused) >= MOST_REFUSED:
                self._refused.clear()
            self._refused[dataset, version] = error
            return
        worker.send(Bind(spec, (part,)))
        self._bound.add((dataset, version, part))

    async def _use(self, worker: Worker, node: Node) -> None:
        """Hand a plan to the worker at its first call; there, one that may not be run is like one that is none."""
        digest = node.args[0] if node.args else None
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or digest in self._plans:
            return
        data = await in_database(_plan, self.caller.token, digest)
        if data is not None:
            worker.send(PutPlan(digest, data))
            await worker.drain()
            self._plans.add(digest)

    async def constant(self, digest: str, header: TensorHeader, data: bytes | None, path: Path | None) -> None:
        """Make a constant known to the worker, which checks the digest of `data`; that of a file is checked already."""
        check_header(header, settings.GRID_MAX_VALUE)
        if data is not None and len(data) != header.nbytes:
            raise InvalidInputError(f"The constant has {len(data)} bytes; its header says {header.nbytes}.")
        worker = await self.worker()
        worker.send(PutConstant(digest, header, data, None if path is None else str(path)))
        await worker.drain()

    async def inline_constant(self, command: Constant) -> None:
        await self.constant(command.digest, command.header, command.data, None)

    async def forget(self, values: list[Ref]) -> None:
        """The client holds these values no longer."""
        if self._worker is not None:
            self._worker.send(Forget(values))
            await self._worker.drain()

    async def get(self, value: Ref | State) -> release.Released:
        """Release one value, or the state of a module as one, to this session's user."""
        proposal = await self._propose(value, aggregate=True)
        await self._check_beside(proposal)
        path = self.folder / f"answer-{next(self._numbers)}"
        return await release.pointer(await self.worker(), value, proposal, caller=self.caller, path=path)

    async def private(self, value: Ref, wanted: Wanted, *, key: str) -> release.Released:
        """Release a private answer to this session's user, charged once under `key`."""
        weighed = await self._weigh(value)
        path = self.folder / f"answer-{next(self._numbers)}"
        return await release.private(
            await self.worker(), value, weighed, wanted, caller=self.caller, key=key, path=path
        )

    async def estimate(self, value: Ref, wanted: Wanted) -> dict[str, float]:
        """What a private answer would cost this session's user."""
        weighed = await self._weigh(value)
        return await in_database(spending.estimate, self.caller.token, weighed, wanted)

    async def _weigh(self, value: Ref) -> Weighed:
        worker = await self.worker()
        weighed = await self._asked(worker, Weigh(next(self._numbers), value))
        if not isinstance(weighed, Weighed):
            raise InternalError("The worker did not say what a private answer depends on.")
        await self._check_beside(weighed)
        return weighed

    async def export(self, value: Ref | State) -> Exportable:
        """The program behind a private value, for a request."""
        proposal = await self._propose(value)
        if proposal.label == "public":
            raise InvalidInputError("This value is public: take it with .get(); there is nothing to ask for.")
        await self._check_beside(proposal)
        worker = await self.worker()
        names = await in_database(_names, [found.dataset for found in proposal.inputs])
        number = next(self._numbers)
        exported = await worker.ask(Export(number, value, str(self.folder / f"constants-{number}"), names))
        if not isinstance(exported, Exported):
            raise InternalError("The program could not be exported.")
        return Exportable(proposal, exported)

    async def _check_beside(self, proposal: Proposal | Weighed) -> None:
        """Of what nobody decides about (mock data, shapes), all that a value was made from must still be there."""
        decided = {(found.dataset, found.version, "values") for found in proposal.inputs}
        beside = [asset for asset in proposal.assets if tuple(asset) not in decided]
        if beside:
            await in_database(_check_assets, self.caller.token, beside)

    async def _propose(self, value: Ref | State, *, aggregate: bool = False) -> Proposal:
        worker = await self.worker()
        proposal = await self._asked(worker, Propose(next(self._numbers), value, aggregate))
        if not isinstance(proposal, Proposal):
            raise InternalError("The worker gave no proposal.")
        return proposal

    async def _asked(self, worker: Worker, question: Propose | Weigh) -> Reply:
        """The worker's reply; a dataset that was not there is refused as it was when the program named it."""
        try:
            return await worker.ask(question)
        except NotFoundError as error:
            named = (str(error.details.get("dataset")), int(error.details.get("version", 0)))
            raise self._refused.get(named, error) from None

    def stop(self) -> None:
        """End the worker, and start none any more; whoever waits for it is told."""
        self._stopped = True
        if self._worker is not None:
            self._worker.on_end = None
            self._worker.kill()

    def close(self) -> None:
        """End the worker and remove the session's files."""
        self.stop()
        if self._own_folder is not None:
            self._own_folder.remove()
            self._own_folder = None  # its descriptor may be somebody else's by the next call


def _names(ids: list[str]) -> dict[str, str]:
    """How the words of a program call its datasets."""
    return {str(pk): slug for pk, slug in Dataset.objects.filter(pk__in=ids).values_list("pk", "slug")}


def _check_assets(token: int, assets: list[tuple[str, int, str]]) -> None:
    """Raise NotFoundError or NotPermittedError when one of them was taken from the user since."""
    user = user_of_live_token(token)
    for dataset, version, part in assets:
        usable(user, dataset, version, part)


def _plan(token: int, digest: str) -> bytes | None:
    """The bytes of a plan that the user may run."""
    user = user_of_live_token(token)
    return data_of(plans_visible_to(user).filter(sha256=digest)) if can_run(user) else None


def _asset(token: int, dataset: str, version: int, part: str) -> AssetSpec:
    return usable(user_of_live_token(token), dataset, version, part)


def usable(user: User, dataset_id: str, version: int, part: str) -> AssetSpec:
    """What a worker needs to map a dataset. Raises NotFoundError alike for absent and forbidden."""
    try:
        key = UUID(dataset_id)
    except ValueError:
        key = None
    dataset = datasets_visible_to(user).filter(pk=key).first() if key else None
    found = dataset.versions.filter(number=version).first() if dataset else None
    if dataset is None or found is None:
        raise NotFoundError("There is no such dataset or version.")
    if part == "values":
        check_can_compute(user, dataset)
    return asset_spec(found)
