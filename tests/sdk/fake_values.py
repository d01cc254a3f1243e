"""Values as they travel, and back: what the node of the SDK's tests sends and receives."""

from __future__ import annotations

import pyarrow as pa
import torch

from gridclient.wire import messages as m


def as_bytes(value: torch.Tensor | pa.Table) -> tuple[str, m.TensorHeader, bytes]:
    """Kind, header and bytes of an answer."""
    if isinstance(value, pa.Table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_table(value)
        data = sink.getvalue().to_pybytes()
        return "table", m.TensorHeader("", [value.num_rows, value.num_columns], len(data)), data
    data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    return "tensor", m.TensorHeader(str(value.dtype).removeprefix("torch."), list(value.shape), len(data)), data


def as_tensor(header: m.TensorHeader, data: bytes) -> torch.Tensor:
    """The tensor that a constant's header and bytes mean."""
    dtype = getattr(torch, header.dtype)
    if not data:
        return torch.empty(header.shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(header.shape)
