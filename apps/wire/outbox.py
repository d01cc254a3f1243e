"""Batches by their numbers: what came already is passed over, and what the client has not seen is said again."""

from __future__ import annotations

from collections import deque
from itertools import count

from gridclient.wire import messages as m
from gridclient.wire.errors import ConflictError, GridError, InvalidInputError, LimitExceededError
from gridclient.wire.frames import pack_batch

FIRST = 1
"""Number of the batch that a hello or a welcome is alone in: no session counts it."""
REMEMBERED = 256
"""Batches whose bytes are known again, from another one under their number."""
MAX_UNSEEN = 1024
MAX_UNSEEN_BYTES = 32 * 2**20


class Inbox:
    """What has arrived in one session. `last`: number of the last batch, 0 where none came."""

    def __init__(self) -> None:
        self.last = 0
        self._contents: dict[int, int] = {}

    def is_new(self, number: int, body: memoryview) -> bool:
        """Whether this batch did not come before. Raises InvalidInputError for a number that cannot come now, and
        ConflictError for another batch under a number that came: one of the two is not this client's."""
        if number > max(self.last, FIRST):
            self.last = number
            self._contents[number] = hash(bytes(body))
            if len(self._contents) > REMEMBERED:
                del self._contents[next(iter(self._contents))]
            return True
        known = self._contents.get(number)
        if known is None:
            raise InvalidInputError(f"Batch ids only grow; the last was {self.last}.")
        if known != hash(bytes(body)):
            raise ConflictError(f"Batch {number} came before, with other bytes. The session has ended.")
        return False


class Outbox:
    """Numbers the batches of the node in one session, and keeps each until the client has seen it."""

    def __init__(self) -> None:
        self._numbers = count(FIRST + 1)
        self._unseen: deque[tuple[int, bytes]] = deque()
        self._nbytes = 0

    def pack(self, command: m.NodeCommand | None, *, seen: int) -> tuple[int, bytes]:
        """The next batch, with its number. An acknowledgement is not kept: it is given anew over the next socket."""
        number = next(self._numbers)
        data = pack_batch(m.encode(m.NodeBatch(number, [] if command is None else [command], seen)))
        if command is not None and not isinstance(command, m.Ack):
            self._unseen.append((number, data))
            self._nbytes += len(data)
        return number, data

    def seen(self, number: int) -> None:
        """The client has every batch up to this one."""
        while self._unseen and self._unseen[0][0] <= number:
            self._nbytes -= len(self._unseen.popleft()[1])

    def unseen(self) -> list[bytes]:
        """What the client has not seen, in order."""
        return [data for _, data in self._unseen]

    @property
    def is_full(self) -> bool:
        """Whether the client never says what it has seen."""
        return len(self._unseen) > MAX_UNSEEN or self._nbytes > MAX_UNSEEN_BYTES

    def too_much(self) -> GridError:
        """What is said to such a client."""
        return LimitExceededError(
            f"{MAX_UNSEEN} answers wait to be seen; each batch says in `seen` what has arrived.", limit=MAX_UNSEEN
        )
