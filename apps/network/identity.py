"""Who we are, proven to whoever asks; and who answers at a URL."""

from __future__ import annotations

import os

from django.conf import settings

from apps.core import keys
from apps.network import messages, outbound
from apps.network.queries import node_id
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire.errors import (
    AuthenticationError,
    ConnectionLostError,
    GridError,
    InvalidInputError,
    VersionMismatchError,
)
from gridclient.wire.messages import PROTOCOL_VERSION

DOMAIN = "gridsite/identity/1"
PATH = "/api/identity/"


def own_identity(challenge: str) -> messages.Identity:
    """Our identity. `challenge` (hex, 16 to 64 bytes; empty: no signature) is signed together with our own URL.

    With the URL, a relay that passes a challenge on to us at another address proves nothing.
    """
    try:
        asked = bytes.fromhex(challenge)
    except ValueError:
        raise InvalidInputError("challenge must be hexadecimal.") from None
    if challenge and not 16 <= len(asked) <= 64:
        raise InvalidInputError("challenge must have 16 to 64 bytes, as hexadecimal.")
    return messages.Identity(
        role=settings.GRID_ROLE,
        name=settings.GRID_NAME,
        id=node_id(),
        protocol=PROTOCOL_VERSION,
        operations=OPERATIONS_VERSION,
        public_key=keys.public_key(),
        signature=keys.sign(DOMAIN, asked + settings.GRID_URL.encode()) if asked else "",
    )


async def ask_identity(url: str, *, role: str) -> messages.Identity:
    """The proven identity of the deployment at `url`, which must have this role.

    Raises ConnectionLostError, AuthenticationError (it does not hold the key that it claims), VersionMismatchError.
    """
    challenge = os.urandom(32)
    reply = await outbound.call("GET", f"{url}{PATH}?challenge={challenge.hex()}", cap=2**16)
    if reply.status != 200:
        raise ConnectionLostError(f"{url} answered with status {reply.status} where its identity was asked for.")
    try:
        identity = messages.decode(reply.body, messages.Identity)
    except GridError:
        raise ConnectionLostError(f"What answers at {url} is no deployment of Gridsite.") from None
    if not keys.verify(identity.public_key, DOMAIN, challenge + url.encode(), identity.signature):
        raise AuthenticationError(
            f"What answers at {url} does not hold the key that it claims, or has another address (GRID_URL)."
        )
    if identity.protocol != PROTOCOL_VERSION:
        raise VersionMismatchError(f"{url} speaks protocol {identity.protocol}, this deployment {PROTOCOL_VERSION}.")
    if identity.role != role:
        raise ConnectionLostError(f"What answers at {url} is not a {role}.")
    return identity
