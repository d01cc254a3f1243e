"""What is to be said to a node, in order: by the user's threads, and again where the node has lost the session.

Threads only append; everything else happens on the loop. Constants that travel as chunks stand in the queue as
barriers, so that no node of the program overtakes its constant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from gridclient.lineage import Known, Lineage
from gridclient.program.graph import MAX_ARGUMENTS_TOGETHER, Node, Ref
from gridclient.wire import messages as m
from gridclient.wire.frames import MAX_BATCH

MOST_AT_A_TIME = 256
_BESIDES = 64  # bytes of a batch around the only node in it


class Appended(msgspec.Struct, frozen=True, gc=False):
    """A node of the program; `held`: its values, where it takes several ids."""

    node: Node
    held: Sequence[Ref] = ()


class Outbox:
    """`arrived` says whether a long constant is on the node, and sees to its upload; `open` whether somebody still
    waits for an ask; `too_long` hears of a node that no batch can carry."""

    def __init__(
        self,
        *,
        arrived: Callable[[Known], bool],
        open: Callable[[int], bool],
        too_long: Callable[[Any, int], None],
    ) -> None:
        self.queue: deque[Appended | bytes | Known | m.ClientCommand] = deque()
        self.drops: deque[Ref] = deque()
        self.lineage = Lineage()
        self._arrived, self._open, self._too_long = arrived, open, too_long
        self._again: deque[bytes | Known | m.ClientCommand] = deque()
        self._told = set[str]()
        """Digests of constants that this session was told."""

    def knows(self, constant: Known) -> bool:
        """Whether this session was told the constant."""
        return constant.digest in self._told

    @property
    def ready(self) -> bool:
        """Whether something may be said now."""
        source: deque[Any] = self._again or self.queue
        return bool(source) and self._ready(source[0])

    def drain(self) -> list[Any]:
        """The next commands, up to the first constant that is still on its way; none for what nobody waits for."""
        # Counted before the nodes: whoever dropped a value had appended its node earlier, so it is not overtaken.
        droppable = len(self.drops)
        commands: list[Any] = []
        nbytes = 0
        for _ in range(MOST_AT_A_TIME):
            source: deque[Any] = self._again or self.queue
            if not source or not self._ready(source[0]):
                break
            item = source.popleft()
            if isinstance(item, Appended):
                item = self._packed(item)
            if isinstance(item, bytes):
                if nbytes and nbytes + len(item) > MAX_ARGUMENTS_TOGETHER:
                    # A value takes a byte at least: so a batch never has more arguments than a node reads.
                    source.appendleft(item)
                    break
                nbytes += len(item)
                if not commands or not isinstance(commands[-1], m.PackedRun):
                    commands.append(m.PackedRun([]))
                commands[-1].nodes.append(msgspec.Raw(item))
            elif isinstance(item, Known):
                self.lineage.know(item)
                if item.inline and item.digest not in self._told:
                    commands.append(m.Constant(item.digest, item.header, bytes(item.data)))
                self._told.add(item.digest)
            elif item is not None and (not hasattr(item, "ask") or self._open(item.ask)):
                commands.append(item)
        if commands and not self._again and not self.queue:
            dropped = [self.drops.popleft() for _ in range(droppable)]
            for ref in dropped:
                self.lineage.drop(ref)
            commands += _drops(dropped)
        return commands

    def say_again(self, asks: Collection[Any]) -> tuple[int, list[Known]]:
        """The node has nothing of this session: queue what live values and open `asks` need, then these, before all
        that was not said yet. Returns the number of nodes, and the constants that must be uploaded."""
        droppable = len(self.drops)
        # A node that was not said yet may need what was dropped since.
        if not self.queue:
            for _ in range(droppable):
                self.lineage.drop(self.drops.popleft())
        asked = {ref for ask in asks for ref in _refs(ask)}
        said, dropped = self.lineage.replay(asked)
        self._told.clear()
        self._again = deque(said)
        self._again += _drops([ref for ref in dropped if ref not in asked])
        self._again += asks
        self.drops += [ref for ref in dropped if ref in asked]
        constants = [item for item in said if isinstance(item, Known)]
        return len(said) - len(constants), [constant for constant in constants if not constant.inline]

    def _ready(self, item: Any) -> bool:
        return not isinstance(item, Known) or item.inline or item.digest in self._told or self._arrived(item)

    def _packed(self, item: Appended) -> bytes | None:
        data = m.pack(item.node)
        if len(data) > MAX_BATCH - _BESIDES:
            self._too_long(item.node, len(data))
            return None
        self.lineage.add(item.node, data, item.held)
        return data


def _drops(refs: list[Ref]) -> list[m.Drop]:
    return [m.Drop(refs[i : i + m.MAX_NODES]) for i in range(0, len(refs), m.MAX_NODES)]


def _refs(ask: Any) -> list[Ref]:
    match ask:
        case m.Get(value=value):
            return [value]
        case m.Take(values=values):
            return values
        case m.Request(value=value, values=values):
            return [value, *values]
    return []
