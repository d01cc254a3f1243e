"""Long values in chunks, both ways: written to and read from files in the session's folder, in constant memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TypeVar
from weakref import WeakSet

from apps.core import metrics
from gridclient.program.graph import begin_digest
from gridclient.wire.errors import GridError, InternalError, InvalidInputError, LimitExceededError, NotFoundError
from gridclient.wire.frames import CHUNK_SIZE, CHUNKS_IN_FLIGHT, Frame, pack_chunk
from gridclient.wire.messages import Upload

logger = logging.getLogger(__name__)
T = TypeVar("T")
MAX_OPEN_UPLOADS = 16
REMEMBERED = 256
"""Finished uploads that are acknowledged once more over another socket."""
ACKNOWLEDGE_WITHIN = 60.0
"""Seconds for which an answer waits for its receiver."""
# Hashing and disk would hold up the event loop: half a millisecond a chunk.
_disk = ThreadPoolExecutor(max_workers=2, thread_name_prefix="disk")


async def on_disk(function: Callable[..., T], *args: object) -> T:
    """Run blocking file work beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_disk, function, *args)


@dataclass
class Incoming:
    """An upload on its way."""

    command: Upload
    path: Path
    file: FileIO
    received: int = 0
    digest: hashlib._Hash = field(init=False)
    wanted: str = field(init=False)

    def __post_init__(self) -> None:
        if self.command.purpose == "constant" and (header := self.command.header) is not None:
            self.digest, self.wanted = begin_digest(header.dtype, header.shape), self.command.name
        else:
            self.digest, self.wanted = hashlib.sha256(), self.command.sha256


class Uploads:
    """The uploads of one session. Chunks of a transfer arrive in order; the acknowledgement is the received offset."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._open: dict[int, Incoming] = {}
        self._finished: dict[int, Path] = {}
        self._arrived: dict[int, int] = {}
        self._used: set[int] = set()
        self._announced: dict[Path, Upload] = {}
        self._bytes = 0
        _live.add(self)

    def begin(self, command: Upload) -> None:
        """Accept an announced upload, or raise LimitExceededError / InvalidInputError."""
        if not 1 <= command.nbytes <= self.limit or self._bytes + command.nbytes > self.limit:
            raise LimitExceededError(
                f"An upload of {command.nbytes} bytes passes this session's limit of {self.limit}.", limit=self.limit
            )
        if len(self._open) >= MAX_OPEN_UPLOADS:
            raise LimitExceededError(f"At most {MAX_OPEN_UPLOADS} uploads at a time.", limit=MAX_OPEN_UPLOADS)
        if command.transfer < 1 or command.transfer in self._used:
            raise InvalidInputError(f"Transfer {command.transfer} was used before; numbers only grow, from 1.")
        self._used.add(command.transfer)
        self._bytes += command.nbytes
        path = self.folder / f"upload-{command.transfer}"
        self._announced[path] = command
        file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115
        self._open[command.transfer] = Incoming(command, path, file)

    async def chunk(self, frame: Frame) -> tuple[int, Incoming | None]:
        """Take one chunk. Returns the offset to acknowledge, and the upload when it is complete and its digest fits."""
        incoming = self._open.get(frame.transfer)
        if incoming is None:
            raise _not_open(frame.transfer)
        try:
            if frame.offset != incoming.received or len(frame.body) > CHUNK_SIZE:
                raise InvalidInputError(
                    f"The next chunk of transfer {frame.transfer} begins at {incoming.received} "
                    f"and has at most {CHUNK_SIZE} bytes."
                )
            if frame.offset + len(frame.body) > incoming.command.nbytes:
                raise InvalidInputError(f"Transfer {frame.transfer} is longer than announced.")
            await on_disk(_write, incoming, frame.body)
            if frame.transfer not in self._open:
                raise _not_open(frame.transfer)
            if incoming.received < incoming.command.nbytes:
                return incoming.received, None
            if incoming.digest.hexdigest() != incoming.wanted:
                raise InvalidInputError(f"Transfer {frame.transfer} arrived damaged: its digest does not fit.")
        except BaseException as error:
            if frame.transfer not in self._open:  # closed meanwhile, and the file with it
                raise _not_open(frame.transfer) from None
            self._discard(frame.transfer)
            if isinstance(error, OSError):
                logger.exception("A chunk could not be written.")
                raise _unwritten(frame.transfer, error) from None
            raise
        incoming.file.close()
        del self._open[frame.transfer]
        self._finished[frame.transfer] = incoming.path
        self._arrived[frame.transfer] = incoming.received
        if len(self._arrived) > REMEMBERED:
            del self._arrived[next(iter(self._arrived))]
        return incoming.received, incoming

    def take(self, transfer: int) -> Path:
        """The file of a finished upload, once."""
        path = self._finished.pop(transfer, None)
        if path is None:
            raise NotFoundError(f"No finished upload {transfer}.")
        return path

    def sha256(self, path: Path) -> str:
        """The digest of a file that was taken."""
        return self._announced[path].sha256

    def release(self, path: Path) -> None:
        """The file is no longer needed: its bytes no longer count."""
        self._bytes -= self._announced.pop(path).nbytes
        path.unlink(missing_ok=True)

    def _discard(self, transfer: int) -> None:
        incoming = self._open.pop(transfer)
        incoming.file.close()
        self.release(incoming.path)

    def received(self) -> list[tuple[int, int]]:
        """Each upload and how much of it is here: where it goes on over another socket.

        The last finished ones too: their acknowledgement may be what was lost.
        """
        return [*self._arrived.items(), *((transfer, incoming.received) for transfer, incoming in self._open.items())]

    def close(self) -> None:
        """Remove what is here, except for files that were taken and are still in use."""
        for transfer in list(self._open):
            self._discard(transfer)
        for transfer in list(self._finished):
            self.release(self._finished.pop(transfer))


_live: WeakSet[Uploads] = WeakSet()
metrics.UPLOADS.set_function(lambda: sum(len(each._open) for each in _live))
metrics.UPLOAD_BYTES.set_function(lambda: sum(each._bytes for each in _live))


class Outgoing:
    """Flow control of one answer: at most `CHUNKS_IN_FLIGHT` chunks beyond the last acknowledgement."""

    def __init__(self, transfer: int, path: Path, nbytes: int) -> None:
        self.transfer = transfer
        self.path = path
        self.nbytes = nbytes
        self.announced = 0
        """The batch that says what comes."""
        self._sent = 0
        self._acknowledged = 0
        self._interrupted = False
        self._moved = asyncio.Event()

    def interrupt(self) -> None:
        """The socket was lost: nothing is sent until the receiver says what it has."""
        self._interrupted = True

    def acknowledge(self, offset: int) -> None:
        """Move the window; after an interruption, go on from there. An offset not sent yet acknowledges nothing."""
        if self._interrupted and 0 <= offset <= self._sent:
            self._interrupted, self._sent, self._acknowledged = False, offset, offset
            self._moved.set()
        elif self._acknowledged < offset <= self._sent:
            self._acknowledged = offset
            self._moved.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The frames of this transfer, as fast as they are acknowledged, until the last one is.

        Raises TimeoutError where the receiver does not take them.
        """
        with await on_disk(_opened, self.path) as file:
            while self._acknowledged < self.nbytes:
                ahead = self._sent - self._acknowledged
                if self._interrupted or self._sent == self.nbytes or ahead >= CHUNKS_IN_FLIGHT * CHUNK_SIZE:
                    self._moved.clear()
                    # Rights were looked at when the value was released: it may finish, not wait for ever.
                    async with asyncio.timeout(ACKNOWLEDGE_WITHIN):
                        await self._moved.wait()
                    continue
                offset = self._sent
                body = await on_disk(os.pread, file.fileno(), CHUNK_SIZE, offset)
                if self._interrupted or self._sent != offset:
                    continue
                self._sent += len(body)
                yield pack_chunk(self.transfer, offset, body)


def _not_open(transfer: int) -> NotFoundError:
    return NotFoundError(f"No upload {transfer} is open.")


def _unwritten(transfer: int, error: OSError) -> GridError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LimitExceededError(
            f"The node has no room on its disk for transfer {transfer}. Tell its operator, or send less."
        )
    return InternalError(f"The node could not write transfer {transfer}. Try again, or tell its operator.")


def sha256_of(path: Path) -> str:
    """sha256 hex of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(incoming: Incoming, body: memoryview) -> None:
    rest = body
    while rest:
        rest = rest[incoming.file.write(rest) :]
    incoming.digest.update(body)
    incoming.received += len(body)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")
