"""What a session's live values are made from, so that it can be said again where the node has it no longer.

Nodes are kept as the bytes that travelled. From the values that somebody still holds, or asks for, the log finds the
operations and constants that they need, in order; the others are forgotten from time to time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from gridclient import settings
from gridclient.program.graph import CONSTANT, Node, Ref, ext_hook, refs
from gridclient.wire.messages import INLINE_CONSTANT_LIMIT, TensorHeader

SWEEP_FROM = 16 * 2**20
"""Bytes below which nothing is worth looking for what nobody needs."""
_OVERHEAD = 200  # what an entry takes besides its bytes, about
_decoder = msgspec.msgpack.Decoder(Node, ext_hook=ext_hook)


class Known:
    """A constant that the node should know under its digest."""

    def __init__(self, digest: str, header: TensorHeader, data: bytes | memoryview) -> None:
        self.digest, self.header, self.data = digest, header, data

    @property
    def inline(self) -> bool:
        """Whether it is short enough for a batch."""
        return self.header.nbytes <= INLINE_CONSTANT_LIMIT


# A million of them must not be walked through by the garbage collector; none can be part of a cycle.
class _Entry(msgspec.Struct, gc=False):
    """A node. `held`: how many values of it somebody held at first; `dropped`: those that nobody holds now."""

    data: bytes
    held: int
    dropped: tuple[Ref, ...] = ()

    @property
    def live(self) -> bool:
        return len(self.dropped) < self.held


class Lineage:
    """The log of one program. Not thread-safe: it lives on the loop."""

    def __init__(self) -> None:
        self.too_long = False
        """Whether the log was given up, because live values need more than `settings.replay_memory`."""
        self._entries: dict[int, _Entry] = {}
        self._inner: dict[int, int] = {}  # ids within a node that takes several, and the id of that node
        self._constants: dict[str, Known] = {}
        self._unnamed = Counter[str]()
        """Constants whose node is yet to come; more than one, where threads are about to name the same."""
        self._nbytes = 0
        self._sweep_at = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, ref: Ref) -> bool:
        return ref.node in self._entries or ref.node in self._inner

    def add(self, node: Node, data: bytes, held: Sequence[Ref] = ()) -> None:
        """Note a node and the bytes that it travels as. `held`: its values, where it takes several ids."""
        if self.too_long:
            return
        self._entries[node.id] = _Entry(data, len(held) or node.outputs)
        if node.op == CONSTANT:
            self._unnamed -= Counter(node.args[:1])
        self._inner.update((ref.node, node.id) for ref in held if ref.node != node.id)
        self._grow(len(data) + _OVERHEAD)

    def know(self, constant: Known) -> None:
        """Note a constant, before the nodes that name it."""
        if self.too_long:
            return
        self._unnamed[constant.digest] += 1
        if constant.digest not in self._constants:
            self._constants[constant.digest] = constant
            self._grow(len(constant.data) + _OVERHEAD)

    def drop(self, ref: Ref) -> None:
        """Nobody holds this value any more."""
        entry = self._entries.get(self._inner.get(ref.node, ref.node))
        if entry is not None and ref not in entry.dropped:
            entry.dropped += (ref,)

    def replay(self, asked: Iterable[Ref] = ()) -> tuple[list[Known | bytes], list[Ref]]:
        """What live and `asked` values need: nodes as bytes, in order, each constant before the node that names it.

        And those values of these nodes that nobody holds.
        """
        said: list[Known | bytes] = []
        dropped: list[Ref] = []
        told = set[str]()
        for number, node in sorted(self._marked(asked).items()):
            if node.op == CONSTANT and node.args[0] in self._constants and node.args[0] not in told:
                told.add(node.args[0])
                said.append(self._constants[node.args[0]])
            said.append(self._entries[number].data)
            dropped += self._entries[number].dropped
        said += [self._constants[digest] for digest in self._unnamed if digest not in told]
        return said, dropped

    def _marked(self, asked: Iterable[Ref]) -> dict[int, Node]:
        marked: dict[int, Node] = {}
        todo = [number for number, entry in self._entries.items() if entry.live]
        todo += [self._inner.get(ref.node, ref.node) for ref in asked]
        while todo:
            number = todo.pop()
            if number not in marked and number in self._entries:
                node = marked[number] = _decoder.decode(self._entries[number].data)
                todo += [self._inner.get(ref.node, ref.node) for ref in refs(node)]
        return marked

    def _grow(self, nbytes: int) -> None:
        self._nbytes += nbytes
        if self._nbytes > min(max(SWEEP_FROM, self._sweep_at), settings.replay_memory):
            self._sweep()

    def _sweep(self) -> None:
        """Forget what no live value needs. Gives the log up where nearly all of it is needed."""
        marked = self._marked(())
        named = {node.args[0] for node in marked.values() if node.op == CONSTANT} | set(self._unnamed)
        self._entries = {number: entry for number, entry in self._entries.items() if number in marked}
        self._inner = {inner: number for inner, number in self._inner.items() if number in marked}
        self._constants = {digest: constant for digest, constant in self._constants.items() if digest in named}
        self._nbytes = sum(len(entry.data) + _OVERHEAD for entry in self._entries.values())
        self._nbytes += sum(len(constant.data) + _OVERHEAD for constant in self._constants.values())
        # Looked for again when it has doubled: a share of each operation's cost, not the whole walk at every one.
        self._sweep_at = 2 * self._nbytes
        if self._nbytes > settings.replay_memory - settings.replay_memory // 8:
            self.too_long = True
            self._entries, self._inner, self._constants = {}, {}, {}
