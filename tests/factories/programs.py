"""Published files and programs for tests of the worker side."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import save_file

from apps.compute.constants import raw_bytes
from apps.compute.messages import (
    Append,
    Bind,
    Evaluate,
    Export,
    Exported,
    Failed,
    Limits,
    Proposal,
    Propose,
    PutConstant,
    Value,
)
from apps.compute.targets import DTYPES
from apps.compute.worker import Session
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import ASSET, CONSTANT, Node, Ref, tensor_digest
from gridclient.wire.messages import Column, TensorHeader


def tensor_asset(
    folder: Path,
    values: torch.Tensor,
    *,
    columns: list[str] | None = None,
    presence: list[bool] | None = None,
    dataset: str = "births",
    sequence: str | None = None,
) -> AssetSpec:
    """A published tensor, its mock data all ones."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {"values": values}
    if presence is not None:
        entries["presence"] = torch.tensor(presence, dtype=torch.uint8)
    save_file(entries, folder / "values.safetensors")
    save_file({"values": torch.ones_like(values)}, folder / "mock.safetensors")
    dtype = str(values.dtype).removeprefix("torch.")
    named = [Column(name, low=0.0, high=100.0) for name in columns or []]
    return AssetSpec(
        dataset, 1, "tensor", str(folder), list(values.shape), dtype, named,
        presence is not None, presence is None, "rows", 1, sequence or f"{dataset}@1",
    )  # fmt: skip


def table_asset(folder: Path, columns: dict[str, Any], kinds: dict[str, str], presence: list[bool] | None) -> AssetSpec:
    """A published table, its mock data the first row."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    for name, content in (("values", table), ("mock", table.slice(0, 1))):
        if name == "values" and presence is not None:
            content = content.append_column("__presence__", pa.array(presence))
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), content.schema) as writer:
            writer.write_table(content)
    named = [
        Column(name, kind, categories=["no", "yes"] if kind == "category" else None) for name, kind in kinds.items()
    ]
    return AssetSpec(
        "table", 1, "table", str(folder), [table.num_rows, table.num_columns], "", named,
        presence is not None, presence is None, "rows", 1, "table@1",
    )  # fmt: skip


class Recorded:
    """A session whose program a test writes line by line. Methods return references."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.session = Session(limits or Limits())
        self._next = 0

    def bind(self, spec: AssetSpec, part: str = "values") -> Ref:
        """Bind a dataset and refer to it."""
        self.session.handle(Bind(spec, (part,)), 0)
        return self(ASSET, spec.dataset, spec.version, part)

    def constant(self, value: torch.Tensor) -> Ref:
        data = bytes(raw_bytes(value))
        dtype = str(value.dtype).removeprefix("torch.")
        digest = tensor_digest(dtype, value.shape, data)
        self.session.handle(PutConstant(digest, TensorHeader(dtype, list(value.shape), len(data)), data), 0)
        return self(CONSTANT, digest)

    def __call__(self, op: str, /, *args: Any, outputs: int = 1, line: str = "", **kwargs: Any) -> Ref:
        number, self._next = self._next, self._next + 1
        self.session.handle(Append([Node(number, op, list(args), kwargs, outputs, line)]), 100)
        return Ref(number)

    def propose(self, ref: Ref) -> Proposal:
        """Raises what the worker tells."""
        reply = self.session.handle(Propose(7, ref), 0)
        if isinstance(reply, Failed):
            raise reply.error()
        assert isinstance(reply, Proposal)
        return reply

    def value(self, ref: Ref, path: Path = Path("/dev/null")) -> torch.Tensor:
        reply = self.session.handle(Evaluate(8, ref, str(path)), 0)
        if isinstance(reply, Failed):
            raise reply.error()
        assert isinstance(reply, Value)
        data = path.read_bytes() if reply.data is None else reply.data
        if not data:
            return torch.zeros(reply.header.shape, dtype=DTYPES[reply.header.dtype])
        return torch.frombuffer(bytearray(data), dtype=DTYPES[reply.header.dtype]).reshape(reply.header.shape)


def scalar(data: bytes) -> float:
    """A float32 from its bytes."""
    return float(struct.unpack("<f", data)[0])


NAME = "february-births (version 1)"
UNBOUNDED = "in a way that no rule bounds: treat it as if it showed single rows."


def words(recorded: Recorded, ref: Ref, folder: Path) -> str:
    """What a reviewer reads of a value of the dataset `births`."""
    exported = recorded.session.handle(Export(1, ref, str(folder / "constants"), {"births": "february-births"}), 0)
    assert isinstance(exported, Exported)
    return exported.words
