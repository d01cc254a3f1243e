"""Answers into files; the suffix says in which format."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gridclient.wire.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".pt", ".npy", ".csv", ".parquet", ".safetensors")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_target(target: Path, *, force: bool) -> None:
    """Raise InvalidInputError for a suffix that is not known, and for a file that is there already unless `force`."""
    if target.suffix.lower() not in SUFFIXES:
        raise InvalidInputError(f"{target}: the suffix says the format; it is one of {', '.join(SUFFIXES)}.")
    if target.exists() and not force:
        raise InvalidInputError(f"{target} is there already; --force overwrites it.")


def save(value: Any, target: Path, *, force: bool = False) -> None:
    """Write a tensor, an Arrow table or tensors by name. The file appears complete, and only its owner may read it.

    Tensors: .pt, .npy, .safetensors (as "value"), with at most two axes also .csv and .parquet. Tables: .csv, .parquet.
    Tensors by name: .pt, .safetensors. Raises InvalidInputError where a value does not fit the format.
    """
    check_target(target, force=force)
    write = _writer(value, target.suffix.lower())
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        try:
            write(file)  # type: ignore[arg-type]  # a temporary file is a binary file in all but its type
            file.flush()
            check_target(target, force=force)
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def _writer(value: Any, suffix: str) -> Callable[[BinaryIO], None]:
    import torch

    if isinstance(value, Mapping):
        offered: dict[str, Callable[[BinaryIO], None]] = {
            ".pt": lambda file: torch.save(dict(value), file),
            ".safetensors": lambda file: _safetensors(value, file),
        }
    elif isinstance(value, torch.Tensor):
        offered = {
            ".pt": lambda file: torch.save(value, file),
            ".safetensors": lambda file: _safetensors({"value": value}, file),
        }
        if value.dtype is not torch.bfloat16:  # numpy and Arrow have none
            offered[".npy"] = lambda file: _npy(value, file)
            if value.dim() <= 2:
                offered[".csv"] = lambda file: _csv(_as_table(value), file)
                offered[".parquet"] = lambda file: _parquet(_as_table(value), file)
    else:
        offered = {".csv": lambda file: _csv(value, file), ".parquet": lambda file: _parquet(value, file)}
    if suffix not in offered:
        raise InvalidInputError(f"This answer does not fit into {suffix}; it does into {', '.join(offered)}.")
    return offered[suffix]


def _as_table(tensor: Any) -> pa.Table:
    import pyarrow as pa

    if tensor.dim() < 2:
        return pa.table({"value": tensor.reshape(-1).numpy()})
    return pa.table([column.contiguous().numpy() for column in tensor.unbind(1)], names=_numbered(tensor.shape[1]))


def _numbered(width: int) -> list[str]:
    return [str(number) for number in range(width)]


def _npy(tensor: Any, file: BinaryIO) -> None:
    import numpy as np

    np.save(file, tensor.numpy(), allow_pickle=False)


def _safetensors(tensors: Mapping[str, Any], file: BinaryIO) -> None:
    from gridclient.publish import safetensors

    for part in safetensors(tensors):
        file.write(part)


def _parquet(table: pa.Table, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, file)


def _csv(table: pa.Table, file: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    columns = []
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        if pa.types.is_string(column.type):
            # A spreadsheet would compute what begins like a formula.
            column = pc.replace_substring_regex(column, r"\A([=+\-@\t\r])", r"'\1")
        columns.append(column)
    names = [f"'{name}" if name.startswith(_FORMULA) else name for name in table.column_names]
    pyarrow.csv.write_csv(pa.table(columns, names=names), file)
