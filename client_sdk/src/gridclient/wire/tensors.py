"""Tensors on the wire: a header `{dtype, shape, nbytes}` and raw little-endian bytes.

The header is checked before anything is allocated.
"""

from __future__ import annotations

import math

from gridclient.wire.errors import InvalidInputError, LimitExceededError
from gridclient.wire.messages import TensorHeader

ITEM_SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
MAX_DIMENSIONS = 16
MAX_EXTENT = 2**40


def check_header(header: TensorHeader, limit: int) -> None:
    """Raise InvalidInputError or LimitExceededError unless the header is consistent and at most `limit` bytes."""
    if header.dtype not in ITEM_SIZES:
        raise InvalidInputError(f"dtype {header.dtype[:32]!r} is not supported; use one of {', '.join(ITEM_SIZES)}.")
    if len(header.shape) > MAX_DIMENSIONS or any(not 0 <= extent <= MAX_EXTENT for extent in header.shape):
        raise InvalidInputError(f"A shape has at most {MAX_DIMENSIONS} dimensions of 0 to 2**40.")
    if math.prod(header.shape) * ITEM_SIZES[header.dtype] != header.nbytes:
        raise InvalidInputError(f"Shape {header.shape} of {header.dtype} does not take {header.nbytes} bytes.")
    if header.nbytes > limit:
        raise LimitExceededError(f"This tensor has {header.nbytes} bytes; the limit is {limit}.", limit=limit)
