"""The constants of a plan: a safetensors file in memory, written and read without torch or numpy.

The format (https://github.com/huggingface/safetensors): `u64` length of the header, little-endian; the header, a JSON
object of name to dtype, shape and offsets; the bytes. Here entries lie in the order of their names, without gaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import TensorHeader
from gridclient.wire.tensors import MAX_DIMENSIONS, check_header

_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_LENGTH = 8
ALIGNMENT = 8
"""The bytes begin at a multiple of this, as those of other writers do."""


class Constant(NamedTuple):
    """A constant's little-endian bytes, and what they are."""

    header: TensorHeader
    data: bytes | memoryview


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_decoder = msgspec.json.Decoder(dict[str, _Entry])


def encode(constants: Mapping[str, Constant]) -> bytes:
    """The file; nothing at all where there is no constant."""
    if not constants:
        return b""
    entries: dict[str, _Entry] = {}
    parts: list[bytes | memoryview] = []
    end = 0
    for name in sorted(constants):
        header, data = constants[name]
        entries[name] = _Entry(_NAMES[header.dtype], header.shape, (end, end + header.nbytes))
        parts.append(data)
        end += header.nbytes
    text = msgspec.json.encode(entries)
    text += b" " * (-(_LENGTH + len(text)) % ALIGNMENT)
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])


def decode(data: memoryview, count: int) -> dict[str, Constant]:
    """Inverse of `encode` for so many constants; the values share the buffer. Raises InvalidInputError."""
    if not data:
        return {}
    begin = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or begin > len(data):
        raise InvalidInputError("The constants of this plan end within their header.")
    text = bytes(data[_LENGTH:begin])
    # Entries and extents are counted while they are text: many short ones would take much memory.
    if text.count(b"{") != count + 1 or text.count(b",") > count * (MAX_DIMENSIONS + 4):
        raise InvalidInputError("The constants of this plan are not those that it names.")
    try:
        entries = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise InvalidInputError("The constants of this plan are no safetensors file.") from None
    found = {}
    end = 0
    for name, entry in entries.items():
        low, high = entry.data_offsets
        if entry.dtype not in _DTYPES or low != end or high < low or begin + high > len(data):
            raise InvalidInputError("The constants of this plan do not lie in order.")
        header = TensorHeader(_DTYPES[entry.dtype], entry.shape, high - low)
        check_header(header, len(data))
        found[name] = Constant(header, data[begin + low : begin + high])
        end = high
    if begin + end != len(data):
        raise InvalidInputError("Something follows the constants of this plan.")
    return found
