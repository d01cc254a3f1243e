"""Long values in chunks, without I/O: what to send next, and where what arrived goes.

Both directions follow one rule: the acknowledgement is the received offset, and at most `CHUNKS_IN_FLIGHT` chunks are
beyond it. After a lost socket a transfer goes on at the offset that its receiver acknowledges first.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from gridclient.wire.errors import ConnectionLostError, InvalidInputError
from gridclient.wire.frames import CHUNK_SIZE, CHUNKS_IN_FLIGHT, Frame, pack_chunk
from gridclient.wire.messages import TensorHeader, Upload

Buffer = bytes | bytearray | memoryview


class Parts:
    """The bytes of several buffers, one after the other."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._views = [memoryview(part).cast("B") for part in parts]
        self._ends = list(itertools.accumulate(len(view) for view in self._views))
        self.nbytes = self._ends[-1] if parts else 0

    def sha256(self) -> str:
        """sha256 hex of them all."""
        digest = hashlib.sha256()
        for view in self._views:
            digest.update(view)
        return digest.hexdigest()

    def piece(self, offset: int, size: int) -> bytes | memoryview:
        """At most `size` bytes from `offset` on, fewer at the end only; copied where they span buffers."""
        found: list[memoryview] = []
        index, end = bisect.bisect_right(self._ends, offset), min(offset + size, self.nbytes)
        while offset < end:
            begin = self._ends[index] - len(self._views[index])
            found.append(self._views[index][offset - begin : end - begin])
            offset, index = begin + len(self._views[index]), index + 1
        return found[0] if len(found) == 1 else b"".join(found)


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
        self._parts = Parts(parts)
        self.nbytes = self._parts.nbytes
        # A constant's name is a digest of its bytes already; to hash takes as long as to send.
        sha256 = "" if purpose == "constant" else self._parts.sha256()
        self.command = Upload(transfer, self.nbytes, sha256, purpose, name, header)
        self.done: Future[None] = Future()
        self.acknowledged = 0
        self._sent = self._furthest = 0
        self._cut = False

    def cut(self) -> None:
        """The socket was lost: what the node acknowledges next is where to go on, wherever that is."""
        self._cut = True

    def acknowledge(self, offset: int) -> Iterator[bytes]:
        """The node has `offset` bytes: the frames that may be sent now."""
        if self._cut and 0 <= offset <= self._furthest:
            self._cut, self.acknowledged, self._sent = False, offset, offset
        if not self.acknowledged <= offset <= self._sent:
            raise InvalidInputError(f"The node acknowledges {offset} bytes of {self._sent} that were sent.")
        self.acknowledged = offset
        while self._sent < self.nbytes and self._sent - offset < CHUNKS_IN_FLIGHT * CHUNK_SIZE:
            body = self._parts.piece(self._sent, CHUNK_SIZE)
            yield pack_chunk(self.command.transfer, self._sent, body)
            self._sent += len(body)
            self._furthest = max(self._furthest, self._sent)
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

    def fail(self, error: Exception) -> None:
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
        self._error: Exception | None = None

    def accept(self, frame: Frame) -> int:
        """Take one chunk; returns the offset to acknowledge. Raises InvalidInputError for one out of place."""
        end = frame.offset + len(frame.body)
        if end <= self.received:
            return self.received  # sent again by a node that had not heard of its arrival
        if frame.offset != self.received or end > len(self.buffer):
            raise InvalidInputError(f"Transfer {frame.transfer} went on at {frame.offset} instead of {self.received}.")
        self._view[frame.offset : end] = frame.body
        self.received = end
        self._moved.set()
        return end

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, unless all of it is here."""
        if self.received < len(self.buffer):
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
