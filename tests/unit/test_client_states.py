"""States from the wire: what the node sends is read exactly, and nonsense is an error, never a wrong tensor."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save

from gridclient.values import DTYPES, decode_state
from gridclient.wire.errors import ConnectionLostError


def test_tensors_of_every_dtype_arrive_as_they_were_saved() -> None:
    given = {f"a.{name}": torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in DTYPES.items()}
    given |= {"none": torch.zeros(0, 3), "one": torch.tensor(2.5)}
    found = decode_state(bytearray(save(given)))
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def file(**entry: object) -> bytearray:
    head = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}).encode()
    return bytearray(len(head).to_bytes(8, "little") + head + bytes(8))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{", file(dtype="F8"), file(shape=[3]),
        file(shape=[-2]), file(shape=[2**40, 2**40]), file(data_offsets=[0, 9]), file(data_offsets=[8, 16]),
        file(data_offsets=[-8, 0]), file(data_offsets=[8, 0]), file(data_offsets=[0]), file(shape=["2"]),
        file(shape=None),
    ],
)  # fmt: skip
def test_nonsense_is_no_state(data: bytes) -> None:
    assert torch.equal(decode_state(file())["w"], torch.zeros(2))
    with pytest.raises(ConnectionLostError):
        decode_state(bytearray(data))
