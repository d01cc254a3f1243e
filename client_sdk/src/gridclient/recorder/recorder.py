"""The recorder of one session with a node: where pointers come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gridclient.program import graph
from gridclient.recorder.channel import Channel
from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import Pointer, pointer_to
from gridclient.recorder.refusals import guard_data
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Tape, Value

_NO_ELEMENTS = Spec.dense((), torch.uint8)  # a table is not a tensor: nothing reads this spec


class Recorder:
    """Gives the first pointers of a session; operations on them record themselves."""

    def __init__(self, channel: Channel) -> None:
        self.tape = Tape(channel)
        guard_data(Pointer)

    def input_asset(
        self,
        dataset: str,
        version: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        part: str = "values",
        info: Any = None,
    ) -> Pointer:
        """Pointer to a published tensor. `dataset` is its id; `info` has `name`, `description`, `tags`, `columns`,
        `bounds` and `mock`."""
        spec = Spec.dense(tuple(shape), dtype)
        return pointer_to(Cell(self._asset(dataset, version, part, info, spec)), info)

    def input_table(self, dataset: str, version: int, part: str = "values", info: Any = None) -> Value:
        """A published table. It is no tensor: keep the value as long as its `.ref` is used."""
        return self._asset(dataset, version, part, info, _NO_ELEMENTS)

    def input_constant(self, tensor: torch.Tensor) -> Pointer:
        """Send a local tensor, as it is now, into the session. It keeps `requires_grad`."""
        pointer = pointer_to(Cell(self.tape.dense_constant(tensor)))
        pointer.requires_grad_(tensor.requires_grad)
        return pointer

    def table_column(
        self, table: Value, names: str | Sequence[str], shape: Sequence[int], dtype: torch.dtype, info: Any = None
    ) -> Pointer:
        """One column of a table [n], or several [n, len(names)]."""
        one = isinstance(names, str)
        op, chosen = ("grid::column", names) if one else ("grid::columns", list(names))
        spec = Spec.dense(tuple(shape), dtype)
        size = 4 + sum(len(name) for name in ([names] if one else names))
        value: Value = self.tape.write(op, [table.ref, chosen], {}, spec, table.sources, arguments=size)
        return pointer_to(Cell(value), info)

    def count(self, counted: Pointer | Value) -> Pointer:
        """Number of rows of a pointer or a table: int64, without axes."""
        return counted.count() if isinstance(counted, Pointer) else pointer_to(Cell(self.tape.count(counted)))

    def _asset(self, dataset: str, version: int, part: str, info: Any, spec: Spec) -> Value:
        name = getattr(info, "name", None) or dataset
        args = [dataset, version, part]
        value: Value = self.tape.write(graph.ASSET, args, {}, spec, frozenset({name}), arguments=10)
        return value
