"""Binary frames: one websocket message is either a batch of commands or one chunk of a transfer.

Header, little-endian, 17 bytes: `u8 kind · u32 transfer · u64 offset · u32 crc32 of the body`. Then the body.
In a batch `transfer` and `offset` are 0 and the body is MessagePack (`gridclient.wire.messages`).
In a chunk the body is raw bytes of transfer `transfer`, beginning at `offset`.
Test vectors: `docs/reference/wire/`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from gridclient.wire.errors import InvalidInputError, LimitExceededError

BATCH, CHUNK = 0, 1
HEADER = struct.Struct("<BIQI")
CHUNK_SIZE = 512 * 1024
CHUNKS_IN_FLIGHT = 8
MAX_FRAME = 8 * 1024 * 1024
MAX_BATCH = 2 * 1024 * 1024
"""Bytes of a batch: commands are decoded where everybody's frames pass, so a batch must be a matter of milliseconds."""
MAX_HELLO = 4 * 1024
"""Bytes of the first batch, which is decoded before anybody has shown who they are."""


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    transfer: int
    offset: int
    body: memoryview


def pack_batch(body: bytes) -> bytes:
    """Frame an encoded batch."""
    return HEADER.pack(BATCH, 0, 0, zlib.crc32(body)) + body


def pack_chunk(transfer: int, offset: int, body: bytes | memoryview) -> bytes:
    """Frame bytes [offset, offset + len(body)) of a transfer."""
    return b"".join((HEADER.pack(CHUNK, transfer, offset, zlib.crc32(body)), body))


def unpack(data: bytes | memoryview) -> Frame:
    """Split a websocket message. Raises InvalidInputError for one that is short, unknown or damaged, LimitExceededError
    for a batch that is too long."""
    view = memoryview(data)
    if len(view) < HEADER.size:
        raise InvalidInputError(f"A frame has at least {HEADER.size} bytes; this one has {len(view)}.")
    kind, transfer, offset, crc = HEADER.unpack_from(view)
    body = view[HEADER.size :]
    if kind not in (BATCH, CHUNK):
        raise InvalidInputError(f"Frame kind {kind} is unknown; 0 is a batch, 1 is a chunk.")
    if kind == BATCH and (transfer or offset):
        raise InvalidInputError("A batch has transfer 0 and offset 0.")
    if kind == BATCH and len(body) > MAX_BATCH:
        raise LimitExceededError(f"A batch has at most {MAX_BATCH} bytes; this one has {len(body)}.", limit=MAX_BATCH)
    if zlib.crc32(body) != crc:
        raise InvalidInputError("A frame arrived damaged: its checksum does not fit.")
    return Frame(kind, transfer, offset, body)
