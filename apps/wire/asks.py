"""What a connection may ask for beyond values: publish, put into the queue, fetch what was approved.

Under a key, an ask of the same content is the same: the numbers of asks, values and transfers are a session's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from apps.accounts.once import Asked, once
from apps.accounts.queries import user_of_live_token
from apps.accounts.scopes import Scope
from apps.audit.models import AuditEvent
from apps.compute import publish as publishing
from apps.compute import release
from apps.compute.messages import State
from apps.compute.sessions import Exportable, Session
from apps.core.database import in_database
from apps.datarequests import actions as requests
from apps.datarequests.policies import check_can_fetch
from apps.datarequests.queries import answer_of, requests_visible_to
from apps.permissions.policies import check_can_publish
from apps.plans import actions as plans
from apps.plans.policies import check_can_send
from apps.plans.queries import public_plan
from apps.wire.transfers import Uploads, on_disk
from gridclient.program.plan_graph import MAX_PLAN
from gridclient.wire import messages as m
from gridclient.wire.errors import InvalidInputError, LimitExceededError, NotFoundError


def scope_of(command: m.ClientCommand) -> Scope:
    """What a token must have been made for to say this."""
    match command:
        case m.Publish() | m.Upload(purpose="values" | "mock"):
            return Scope.PUBLISH
        case m.Begin() | m.Drop() | m.Ack():
            return Scope.READ
        case _:
            return Scope.COMPUTE


async def check_upload(command: m.Upload, caller: release.Caller) -> None:
    """Refuse an upload that could not be used, before its first byte."""
    match command.purpose:
        case "constant":
            if command.header is None or command.header.nbytes != command.nbytes:
                raise InvalidInputError("A constant is uploaded with its header, of the same number of bytes.")
        case "values" | "mock":
            await in_database(lambda: check_can_publish(user_of_live_token(caller.token)))
        case "plan":
            await in_database(lambda: check_can_send(user_of_live_token(caller.token)))
            if command.nbytes > MAX_PLAN:
                raise LimitExceededError(f"A plan has at most {MAX_PLAN} bytes.", limit=MAX_PLAN)
        case _:
            raise InvalidInputError("The purpose of an upload is 'constant', 'values', 'mock' or 'plan'.")


async def publish(command: m.Publish, session: Session, uploads: Uploads) -> dict[str, Any]:
    """Publish finished uploads; returns the dataset's public metadata."""
    values = uploads.take(command.values)
    mock = uploads.take(command.mock) if command.mock else None
    try:
        return await publishing.publish(
            await session.worker(),
            ask=command.ask,
            caller=session.caller,
            spec=command.spec,
            values=values,
            mock=mock,
            asked=_asked(command, command.spec, [uploads.sha256(path) for path in (values, mock) if path is not None]),
        )
    finally:
        for path in (values, mock):
            if path is not None:
                uploads.release(path)


async def keep_plan(command: m.Plan, caller: release.Caller, uploads: Uploads) -> dict[str, Any]:
    """Keep a plan that was uploaded; returns what is told of it."""
    path = uploads.take(command.transfer)
    asked = _asked(command, uploads.sha256(path), command.allow_download)

    def send() -> Any:
        user = user_of_live_token(caller.token)

        def keep() -> dict[str, Any]:
            return public_plan(plans.send(arrived, allow_download=command.allow_download, by=user), user)

        return once(user, asked, keep)

    try:
        arrived = await on_disk(plans.read, path)
        return await in_database(send)
    finally:
        uploads.release(path)


async def submit(command: m.Request, session: Session) -> str:
    """Put the program behind a value into the queue; returns the request's id."""
    if not command.names:
        return await in_database(_submit, await session.export(command.value), command, session.caller)
    if command.values[:1] != [command.value]:
        raise InvalidInputError("The value of a request for a state is the first of its values.")
    exportable = await session.export(State(command.module, command.names, command.values))
    return await in_database(_submit, exportable, command, session.caller)


def _submit(exportable: Exportable, command: m.Request, caller: release.Caller) -> str:
    user = user_of_live_token(caller.token)
    proposal, exported = exportable.proposal, exportable.exported
    constants = Path(exported.constants) if exported.constants else None
    module = command.module if command.names else ""

    def put() -> str:
        request = requests.submit(
            requester=user,
            reason=command.reason,
            program=exported.program,
            words=exported.words,
            program_hash=proposal.program_hash,
            inputs=proposal.inputs,
            kind=proposal.kind,
            dtype=proposal.dtype,
            shape=list(proposal.shape),
            label=proposal.label,
            module=module,
            names=command.names,
            constants_file=constants,
            by=user,
        )
        return str(request.pk)

    asked = _asked(command, proposal.program_hash, command.reason, module, command.names)
    try:
        return str(once(user, asked, put))
    finally:
        # A refusal leaves it where the session wrote it; asked again and again, refusals would fill the disk.
        if constants is not None:
            constants.unlink(missing_ok=True)


def _asked(command: m.Publish | m.Plan | m.Request, *content: Any) -> Asked:
    return Asked(command.key, msgspec.msgpack.encode([type(command).__name__, *content]))


async def fetch(command: m.Fetch, caller: release.Caller) -> release.Released:
    """The stored answer of an approved request."""

    def load() -> tuple[release.Answered, AuditEvent]:
        user = user_of_live_token(caller.token)
        try:
            key = UUID(command.request)
        except ValueError:
            key = None
        request = requests_visible_to(user).filter(pk=key).first() if key else None
        if request is None:
            raise NotFoundError("There is no such request.")
        check_can_fetch(user, request)
        return answer_of(request), requests.delivered(request, to=user)

    return await release.stored(load)
