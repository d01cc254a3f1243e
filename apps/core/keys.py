"""The keys of this deployment: files outside the database, mode 0600, made at the first need.

`signing.key` (Ed25519) signs audit heads, announcements, assertions and challenges; each use prefixes its own
domain, so that a signature made for one purpose is worth nothing for another. `entity.key` (32 bytes) turns
identifiers of people into HMACs.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings

from apps.core.durable import sync


def load_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a secret file, mode 0600; what `make` gives, where there is none yet."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Written aside and linked: two processes that start together agree on the first one's key.
        aside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
        sync(path.parent)
    return path.read_bytes()


def _random_key() -> bytes:
    return os.urandom(32)


@cache
def _signing_key(folder: Path) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(load_or_create(folder / "signing.key", _random_key))


def entity_key() -> bytes:
    """The 32 bytes under which identifiers of people are hashed."""
    return load_or_create(settings.GRID_KEYS_DIR / "entity.key", _random_key)


def public_key() -> str:
    """This deployment's public key, hex of 32 bytes."""
    return _signing_key(settings.GRID_KEYS_DIR).public_key().public_bytes_raw().hex()


def fingerprint(public: str) -> str:
    """Short name of a public key: the first 32 hex digits of its sha256."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:32]


def sign(domain: str, message: bytes) -> str:
    """Signature, hex, over `domain`, a newline and the message."""
    return _signing_key(settings.GRID_KEYS_DIR).sign(domain.encode() + b"\n" + message).hex()


def verify(public: str, domain: str, message: bytes, signature: str) -> bool:
    """Whether `signature` is `public`'s over this domain and message. False for anything malformed."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), domain.encode() + b"\n" + message)
    except (InvalidSignature, ValueError):
        return False
    return True
