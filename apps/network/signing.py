"""Signed requests between deployments.

The signature covers the method, the path, the body's sha256, the time, a nonce and the receiver's public key: a
request is worth nothing at another receiver, for another body, a minute later, or a second time.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from apps.core import keys
from apps.core.canonical import canonical
from apps.network.models import UsedOnce
from apps.network.once import use_once
from gridclient.wire.errors import AuthenticationError

DOMAIN = "gridsite/request/1"
WINDOW = timedelta(seconds=60)
KEY, TIMESTAMP, NONCE, SIGNATURE = "Grid-Key", "Grid-Timestamp", "Grid-Nonce", "Grid-Signature"
# Lower case only: one key and one nonce have one spelling.
_SHAPES = {
    KEY: re.compile("[0-9a-f]{64}"),
    TIMESTAMP: re.compile("[0-9]{1,12}"),
    NONCE: re.compile("[0-9a-f]{32}"),
    SIGNATURE: re.compile("[0-9a-f]{128}"),
}


def _message(method: str, path: str, body: bytes, timestamp: str, nonce: str, audience: str) -> bytes:
    return canonical([method.upper(), path, hashlib.sha256(body).hexdigest(), timestamp, nonce, audience])


def sign_request(method: str, path: str, body: bytes, *, audience: str, now: datetime) -> dict[str, str]:
    """Headers of a request to the deployment whose public key is `audience`. `path` begins with /api/."""
    timestamp, nonce = str(int(now.timestamp())), os.urandom(16).hex()
    signature = keys.sign(DOMAIN, _message(method, path, body, timestamp, nonce, audience))
    return {KEY: keys.public_key(), TIMESTAMP: timestamp, NONCE: nonce, SIGNATURE: signature}


def signer(method: str, path: str, body: bytes, headers: Mapping[str, str], *, now: datetime) -> str:
    """The public key that signed this request to us, and uses its nonce up. Raises AuthenticationError."""
    given = [headers.get(name, "") for name in _SHAPES]
    if not all(shape.fullmatch(text) for shape, text in zip(_SHAPES.values(), given, strict=True)):
        raise AuthenticationError(f"The request is not signed: it needs the headers {', '.join(_SHAPES)}.")
    key, timestamp, nonce, signature = given
    age = now.timestamp() - int(timestamp)
    if abs(age) > WINDOW.total_seconds():
        raise AuthenticationError(f"The request was signed {age:.0f} s ago by its clock; set both clocks right.")
    if not keys.verify(key, DOMAIN, _message(method, path, body, timestamp, nonce, keys.public_key()), signature):
        raise AuthenticationError("The signature does not fit the request, or it was meant for another deployment.")
    # Twice the window: a request may come from a clock that is a window ahead.
    if not use_once(UsedOnce.Kind.NONCE, f"{key}:{nonce}", expires=now + 2 * WINDOW, now=now):
        raise AuthenticationError("This request was made before; sign a new one.")
    return key
