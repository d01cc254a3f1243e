"""Records what plain torch does with pointers, as a program that a node runs.

    pointer    the tensor subclass that users hold
    rules      how each ATen operation is recorded; `rewrites` has those that become something else
    places     cells and views: what shares memory
    tape       the program being written; `shapes` and `spec` know what comes out of an operation
    channel    what the recorder needs from a connection
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gridclient.program import graph
from gridclient.recorder.channel import Channel
from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import Pointer
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Tape, Value

__all__ = ["Channel", "Pointer", "Recorder"]


class Recorder:
    """The program of one session on one node, and the pointers into it."""

    def __init__(self, channel: Channel) -> None:
        self._tape = Tape(channel)

    def input_asset(
        self,
        dataset: str,
        version: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        part: str = "values",
        info: Any = None,
    ) -> Pointer:
        """A pointer to a published tensor, or to its mock data."""
        sources = frozenset([str(getattr(info, "name", dataset))])
        value = self._tape.write(graph.ASSET, [dataset, version, part], {}, Spec.dense(tuple(shape), dtype), sources)
        return Pointer(Cell(value), info)

    def input_table(self, dataset: str, version: int, part: str = "values") -> Value:
        """A published table, or its mock data. Only columns of it are tensors."""
        value: Value = self._tape.write(
            graph.ASSET, [dataset, version, part], {}, Spec.dense((0,), torch.uint8), frozenset([dataset])
        )
        return value

    def input_constant(self, tensor: torch.Tensor) -> Pointer:
        """A pointer to a copy of a local tensor."""
        return Pointer(Cell(self._tape.constant(tensor)))

    def table_column(self, table: Value, names: str | list[str], shape: Sequence[int], dtype: torch.dtype) -> Pointer:
        """One column of a table [n], or several [n, columns]."""
        name = "grid::column" if isinstance(names, str) else "grid::columns"
        spec = Spec.dense(tuple(shape), dtype)
        return Pointer(Cell(self._tape.write(name, [table.ref, names], {}, spec, table.sources)))

    def count(self, rows: Pointer | Value) -> Pointer:
        """How many records there are: int64 []."""
        if isinstance(rows, Pointer):
            return rows.count()
        spec = Spec.dense((), torch.int64)
        return Pointer(Cell(self._tape.write("grid::count", [rows.ref], {}, spec, rows.sources)))
