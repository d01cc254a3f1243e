"""Batches of one connection: numbered, and kept until the node has seen them. Without I/O, and on the loop only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gridclient.wire import messages as m
from gridclient.wire.frames import MAX_BATCH, pack_batch

ANSWER_AFTER = 64
"""Batches of the node after which it hears that they arrived, though there is nothing to say."""
_HELLO = 1


class Batches:
    """What goes out and what came in. Ids grow for the life of the connection, over sockets and sessions."""

    def __init__(self) -> None:
        self.received = 0
        """The last batch of the node that arrived in this session."""
        self._next = _HELLO + 1
        self._kept: deque[tuple[int, bytes]] = deque()
        self._unanswered = 0

    def pack(self, commands: Sequence[Any], too_long: Callable[[Any, int], None]) -> Iterator[bytes]:
        """The commands as frames, each with a batch that is kept; a command longer than any goes to `too_long`."""
        body = m.encode(m.ClientBatch(self._next, list(commands), self.received))
        if len(body) <= MAX_BATCH:
            frame = pack_batch(body)
            # Acknowledgements are said anew over the next socket.
            if not all(isinstance(command, m.Ack) for command in commands):
                self._kept.append((self._next, frame))
            self._next += 1
            self._unanswered = 0
            yield frame
        elif len(commands) == 1:
            too_long(commands[0], len(body))
        else:
            middle = len(commands) // 2
            yield from self.pack(commands[:middle], too_long)
            yield from self.pack(commands[middle:], too_long)

    def take(self, batch: m.NodeBatch) -> bool:
        """Note a batch of the node. False for one that arrived already."""
        self.seen(batch.seen)
        if batch.id <= self.received:
            return False
        self.received = batch.id
        self._unanswered += 1
        return True

    @property
    def owes(self) -> bool:
        """Whether the node should hear that its batches arrived."""
        return self._unanswered >= ANSWER_AFTER

    def seen(self, last: int) -> None:
        """The node has what was sent up to this batch."""
        while self._kept and self._kept[0][0] <= last:
            self._kept.popleft()

    def unseen(self) -> list[bytes]:
        """Frames that the node may have missed, in order and as they were."""
        return [frame for _, frame in self._kept]

    def forget(self) -> None:
        """Another session begins: nothing of the old one is sent again."""
        self.received = self._unanswered = 0
        self._kept.clear()


def hello(command: m.Hello, seen: int) -> bytes:
    """The first frame over a socket."""
    return pack_batch(m.encode(m.ClientBatch(_HELLO, [command], seen)))
