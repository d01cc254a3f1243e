"""Tensors and tables from and into the bytes that travel."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch

from gridclient.private import receipt_of
from gridclient.wire.errors import ConnectionLostError, GridError, InvalidInputError
from gridclient.wire.messages import Answer, TensorHeader
from gridclient.wire.tensors import ITEM_SIZES, check_header

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ITEM_SIZES}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
SAFETENSORS = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
"""What the format of states and uploads calls the dtypes."""
_SAFETENSORS = {name: dtype for dtype, name in SAFETENSORS.items()}


class _Entry(msgspec.Struct):
    """A tensor in the head of a safetensors file."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def dtype_name(dtype: torch.dtype) -> str:
    """The name on the wire. Raises InvalidInputError for a dtype that does not travel."""
    if dtype not in _NAMES:
        raise InvalidInputError(f"{dtype} is not supported; use one of {', '.join(ITEM_SIZES)}.")
    return _NAMES[dtype]


def header_of(tensor: torch.Tensor) -> TensorHeader:
    """What a tensor's bytes are."""
    return TensorHeader(dtype_name(tensor.dtype), list(tensor.shape), tensor.numel() * tensor.element_size())


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The little-endian bytes of a tensor; shared with it where it is contiguous and on the CPU."""
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def local_tensor(values: Any, argument: str) -> torch.Tensor:
    """A local tensor from a torch tensor, a numpy array or nested lists of numbers. Raises InvalidInputError."""
    if type(values) in (torch.Tensor, torch.nn.Parameter):
        return values.detach()
    try:
        array = np.ascontiguousarray(values).reshape(np.shape(values))
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInputError(
            f"{argument} is a torch tensor or a numpy array of numbers, not {type(values).__name__}."
        ) from None


def decode_state(data: bytearray) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name; they share the buffer. Raises ConnectionLostError for nonsense."""
    try:
        begin = 8 + int.from_bytes(data[:8], "little")
        entries = msgspec.json.decode(data[8:begin], type=dict[str, _Entry])
        found = {}
        for name, entry in entries.items():
            first, end = entry.data_offsets
            header = TensorHeader(_SAFETENSORS[entry.dtype], entry.shape, end - first)
            check_header(header, len(data))
            part = memoryview(data)[begin + first : begin + end]
            if first < 0 or len(part) != header.nbytes:
                raise InvalidInputError("A tensor lies outside of the file.")
            found[name] = _tensor(header, part)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, KeyError, GridError):
        raise ConnectionLostError("The node sent a state that is none.") from None
    return found


def _tensor(header: TensorHeader, data: bytearray | memoryview) -> torch.Tensor:
    dtype = DTYPES[header.dtype]
    if not data:
        return torch.empty(header.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(header.shape)


def decode(answer: Answer, data: bytearray) -> torch.Tensor | pa.Table | dict[str, torch.Tensor]:
    """The value of an answer, on the CPU. A tensor shares the buffer. Raises ConnectionLostError for nonsense."""
    if answer.kind == "state":
        return decode_state(data)
    if answer.kind == "table":
        try:
            table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
            # Offsets of a hostile node may point anywhere.
            table.validate(full=True)
            return table
        except (pa.ArrowException, OSError, ValueError, TypeError):
            raise ConnectionLostError("The node sent a table that is none.") from None
    header = answer.header
    check_header(header, max(len(data), header.nbytes))
    if len(data) != header.nbytes:
        raise ConnectionLostError(f"The node sent {len(data)} bytes of a value of {header.nbytes}.")
    value = _tensor(header, data)
    if answer.receipt is not None:
        value.receipt = receipt_of(answer.receipt)  # type: ignore[attr-defined]
    return value
