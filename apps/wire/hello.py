"""The first exchange of a connection: who is it, and do both ends speak the same protocol?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from django.conf import settings

from apps.accounts.queries import user_of_token
from apps.compute.release import Caller
from apps.core.clock import now
from apps.core.database import in_database
from apps.network.queries import node_id
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError, InvalidInputError, LimitExceededError, VersionMismatchError
from gridclient.wire.frames import CHUNK, CHUNK_SIZE, CHUNKS_IN_FLIGHT, MAX_BATCH, MAX_FRAME, MAX_HELLO, unpack


@dataclass(frozen=True, slots=True)
class Greeted:
    """What the welcome says of the user and the node, and with what the client wants to go on."""

    node_id: str
    user: str
    rights: list[str]
    client: str
    caller: Caller
    resume: str = ""
    seen: int = 0


async def greet(data: bytes) -> Greeted:
    """Check the first frame. Raises InvalidInputError, VersionMismatchError or AuthenticationError."""
    if len(data) > MAX_HELLO:
        raise LimitExceededError(f"The first batch has at most {MAX_HELLO} bytes.", limit=MAX_HELLO)
    frame = unpack(data)
    if frame.kind == CHUNK:
        raise AuthenticationError("Say hello first.")
    batch = m.decode_client(frame.body)
    if len(batch.commands) != 1 or not isinstance(batch.commands[0], m.Hello) or batch.id != 1:
        raise AuthenticationError("The first batch has id 1 and holds one hello.")
    command = batch.commands[0]
    if command.protocol != m.PROTOCOL_VERSION:
        raise VersionMismatchError(
            f"This node speaks protocol {m.PROTOCOL_VERSION}, the client {command.protocol}: "
            + ("upgrade gridclient." if command.protocol < m.PROTOCOL_VERSION else "the node must be upgraded."),
            protocol=m.PROTOCOL_VERSION,
        )
    if command.operations > OPERATIONS_VERSION:
        raise VersionMismatchError(
            f"This node knows operation set {OPERATIONS_VERSION}, the client uses {command.operations}: "
            "the node must be upgraded.",
            operations=OPERATIONS_VERSION,
        )
    if settings.GRID_ROLE != "node":
        raise InvalidInputError("This is a network: it holds no data. Connect to one of its nodes.")
    greeted = await in_database(_identify, command.token, command.client)
    return replace(greeted, resume=command.resume, seen=batch.seen)


def _identify(token: str, client: str) -> Greeted:
    user, access = user_of_token(token, now=now())
    scopes = None if access.scopes is None else tuple(access.scopes)
    caller = Caller(user.pk, access.pk, access.expires, scopes)
    return Greeted(node_id(), user.username, sorted(user.capabilities), client, caller)


def welcome(greeted: Greeted, session: str, resume: str) -> m.Welcome:
    """The answer to a good hello. `resume`: the token to go on with the session."""
    return m.Welcome(
        session,
        m.PROTOCOL_VERSION,
        OPERATIONS_VERSION,
        greeted.node_id,
        settings.GRID_NAME,
        greeted.user,
        greeted.rights,
        {
            "frame": MAX_FRAME,
            "batch": MAX_BATCH,
            "chunk": CHUNK_SIZE,
            "chunks_in_flight": CHUNKS_IN_FLIGHT,
            "upload": settings.GRID_MAX_UPLOAD,
            "value": settings.GRID_MAX_VALUE,
            "deadline_seconds": settings.GRID_DEADLINE,
        },
        resume,
    )
