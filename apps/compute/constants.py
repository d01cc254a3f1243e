"""The constants of a session, by digest: small ones in memory, large ones mapped from the uploaded file."""

from __future__ import annotations

from pathlib import Path

import torch

from apps.compute import mapped
from apps.compute.targets import DTYPES
from gridclient.program.graph import tensor_digest
from gridclient.wire.errors import GridError, InvalidInputError, LimitExceededError
from gridclient.wire.messages import TensorHeader
from gridclient.wire.tensors import check_header


def raw_bytes(value: torch.Tensor) -> memoryview:
    """The little-endian bytes of a tensor, contiguous. Shares memory where it can."""
    flat = value.detach().contiguous().reshape(-1)
    if not flat.numel():
        return memoryview(b"")
    # An expanded single element counts as contiguous whatever its stride, but not for a view as bytes.
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8).numpy().data


class Constants:
    """What was put, or why it was refused. `limit` is the most bytes that are kept in memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._nbytes = 0
        self._known: dict[str, tuple[TensorHeader, torch.Tensor]] = {}
        self._refused: dict[str, GridError] = {}

    def put(self, digest: str, header: TensorHeader, data: bytes | None, path: str | None) -> None:
        """Take a constant whose digest is right; that of a file was checked while it arrived.

        Never raises: what is wrong is told when the constant is used.
        """
        if digest in self._known:
            return
        try:
            self._known[digest] = (header, self._checked(digest, header, data, path))
            self._refused.pop(digest, None)
        except GridError as error:
            self._refused[digest] = error
        except (OSError, ValueError):
            self._refused[digest] = InvalidInputError("A constant did not arrive whole.")

    def add(self, digest: str, value: torch.Tensor) -> None:
        """Take the tensor of an exported program. Raises InvalidInputError where the digest is not its own."""
        dtype = str(value.dtype).removeprefix("torch.")
        header = TensorHeader(dtype, list(value.shape), value.numel() * value.element_size())
        if tensor_digest(dtype, value.shape, raw_bytes(value)) != digest:
            raise InvalidInputError("A constant of this program was changed.")
        self._known[digest] = (header, mapped.aligned(value))

    def header(self, digest: str) -> TensorHeader:
        """dtype and shape. Raises InvalidInputError for a constant that is not there."""
        return self._found(digest)[0]

    def tensor(self, digest: str) -> torch.Tensor:
        """The values."""
        return self._found(digest)[1]

    def _found(self, digest: str) -> tuple[TensorHeader, torch.Tensor]:
        if digest not in self._known:
            raise self._refused.get(digest) or InvalidInputError("A constant of this program was never sent.")
        return self._known[digest]

    def _checked(self, digest: str, header: TensorHeader, data: bytes | None, path: str | None) -> torch.Tensor:
        if data is not None:
            value = self._inline(header, data)
        elif path is not None:
            check_header(header, 2**62)
            if Path(path).stat().st_size != header.nbytes:
                raise InvalidInputError("A constant did not arrive whole.")
            value = mapped.raw_tensor(Path(path), header.dtype, header.shape)
        else:
            raise InvalidInputError("A constant has neither bytes nor a file.")
        if header.dtype == "bool" and bool((value.view(torch.uint8) > 1).any()):
            raise InvalidInputError("A bool is a byte of 0 or 1.")
        # A file was hashed while it arrived.
        if data is not None and tensor_digest(header.dtype, header.shape, raw_bytes(value)) != digest:
            raise InvalidInputError("A constant's digest does not fit its dtype, shape and bytes.")
        return value

    def _inline(self, header: TensorHeader, data: bytes) -> torch.Tensor:
        check_header(header, self._limit)
        if len(data) != header.nbytes:
            raise InvalidInputError(f"A constant has {len(data)} bytes; its header says {header.nbytes}.")
        if self._nbytes + len(data) > self._limit:
            raise LimitExceededError(
                f"The small constants of a session take at most {self._limit} bytes.", limit=self._limit
            )
        self._nbytes += len(data)
        if not data:
            return torch.zeros(header.shape, dtype=DTYPES[header.dtype])
        return mapped.aligned(torch.frombuffer(bytearray(data), dtype=DTYPES[header.dtype]).reshape(header.shape))
