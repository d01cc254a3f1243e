"""Tensors and tables from and into the bytes that travel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gridclient.wire.errors import ConnectionLostError, InvalidInputError
from gridclient.wire.messages import Answer, TensorHeader
from gridclient.wire.tensors import ITEM_SIZES, check_header

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ITEM_SIZES}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


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


def decode(answer: Answer, data: bytearray) -> torch.Tensor | pa.Table:
    """The value of an answer, on the CPU. The tensor shares the buffer. Raises ConnectionLostError for nonsense."""
    if answer.kind == "table":
        try:
            return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
        except pa.ArrowInvalid:
            raise ConnectionLostError("The node sent a table that is none.") from None
    header = answer.header
    check_header(header, max(len(data), header.nbytes))
    if len(data) != header.nbytes:
        raise ConnectionLostError(f"The node sent {len(data)} bytes of a value of {header.nbytes}.")
    dtype = DTYPES[header.dtype]
    if not data:
        return torch.empty(header.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(header.shape)
