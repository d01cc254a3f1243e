"""Long values in chunks, without I/O: what to send next, and where what arrived goes.

Both directions follow one rule: the acknowledgement is the received offset, and at most `CHUNKS_IN_FLIGHT` chunks are
beyond it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from gridclient.wire.errors import ConnectionLostError, GridError, InvalidInputError
from gridclient.wire.frames import CHUNK_SIZE, CHUNKS_IN_FLIGHT, Frame, pack_chunk
from gridclient.wire.messages import TensorHeader, Upload

Buffer = bytes | bytearray | memoryview


def pieces(parts: Sequence[Buffer], size: int = CHUNK_SIZE) -> Iterator[bytes | memoryview]:
    """The bytes of all parts in pieces of `size`, the last one shorter; copies only where a piece spans parts."""
    kept: list[memoryview] = []
    have = 0
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            kept.append(view[: size - have])
            have += len(kept[-1])
            view = view[len(kept[-1]) :]
            if have == size:
                yield kept[0] if len(kept) == 1 else b"".join(kept)
                kept, have = [], 0
    if kept:
        yield b"".join(kept)


class Outgoing:
    """One upload. `done` ends when the node has acknowledged every byte, or with the error that ended it."""

    def __init__(
        self,
        transfer: int,
        parts: Sequence[Buffer],
        purpose: str,
        *,
        name: str = "",
        header: TensorHeader | None = None,
    ) -> None:
        self.nbytes = sum(memoryview(part).nbytes for part in parts)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        self.command = Upload(transfer, self.nbytes, digest.hexdigest(), purpose, name, header)
        self.done: Future[None] = Future()
        self.acknowledged = 0
        self._sent = 0
        self._pieces = pieces(parts)

    def acknowledge(self, offset: int) -> Iterator[bytes]:
        """The node has `offset` bytes: the frames that may be sent now."""
        if not self.acknowledged <= offset <= self._sent:
            raise InvalidInputError(f"The node acknowledges {offset} bytes of {self._sent} that were sent.")
        self.acknowledged = offset
        while self._sent < self.nbytes and self._sent - offset < CHUNKS_IN_FLIGHT * CHUNK_SIZE:
            body = next(self._pieces)
            yield pack_chunk(self.command.transfer, self._sent, body)
            self._sent += len(body)
        if offset == self.nbytes and not self.done.done():
            self.done.set_result(None)

    def wait(self, timeout: float, show: Callable[[int], None]) -> None:
        """Block until every byte is acknowledged. Raises the error that ended the transfer."""
        seen, moved = 0, time.monotonic()
        while True:
            try:
                return self.done.result(0.1)
            except TimeoutError:
                if self.acknowledged > seen:
                    seen, moved = self.acknowledged, time.monotonic()
                elif time.monotonic() - moved > timeout:
                    raise ConnectionLostError(f"Nothing of the upload arrived for {timeout:g} seconds.") from None
                show(seen)

    def fail(self, error: GridError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Incoming:
    """One answer on its way into a buffer that was allocated once. The waiting thread hashes behind the network."""

    def __init__(self, nbytes: int, sha256: str) -> None:
        self.buffer = bytearray(nbytes)
        self.received = 0
        self._view = memoryview(self.buffer)
        self._sha256 = sha256
        self._moved = threading.Event()
        self._error: GridError | None = None

    def accept(self, frame: Frame) -> int:
        """Take one chunk; returns the offset to acknowledge. Raises InvalidInputError for one out of place."""
        end = frame.offset + len(frame.body)
        if frame.offset != self.received or end > len(self.buffer):
            raise InvalidInputError(f"Transfer {frame.transfer} went on at {frame.offset} instead of {self.received}.")
        self._view[frame.offset : end] = frame.body
        self.received = end
        self._moved.set()
        return end

    def fail(self, error: GridError) -> None:
        self._error = error
        self._moved.set()

    def wait(self, timeout: float, show: Callable[[int], None]) -> bytearray:
        """Block until everything is here and its sha256 fits. Raises the error that ended the transfer."""
        digest, hashed = hashlib.sha256(), 0
        while hashed < len(self.buffer):
            if not self._moved.wait(timeout):
                raise ConnectionLostError(f"The rest of the answer did not arrive within {timeout:g} seconds.")
            self._moved.clear()
            if self._error is not None:
                raise self._error
            ready = self.received
            digest.update(self._view[hashed:ready])
            hashed = ready
            show(hashed)
        if digest.hexdigest() != self._sha256:
            raise ConnectionLostError("The answer arrived damaged: its sha256 does not fit. Ask again.")
        return self.buffer
