"""A recorder whose programs a worker's session computes, in this process and without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from apps.compute.constants import raw_bytes
from apps.compute.messages import Append, Evaluate, Failed, Limits, PutConstant, Value
from apps.compute.targets import DTYPES
from apps.compute.worker import Session
from gridclient.program.graph import Node, Ref
from gridclient.recorder import Pointer, Recorder
from gridclient.wire.messages import TensorHeader


class WorkerNode:
    """A recorder's channel. What is sent is public: a test of values, not of who may have them."""

    def __init__(self, folder: Path) -> None:
        self.node_id = "hospital"
        self.recorder = Recorder(self)
        self._answer = folder / "answer"
        self._session = Session(Limits())

    def send(self, tensor: torch.Tensor) -> Pointer:
        return self.recorder.input_constant(tensor)

    def append(self, node: Node, held: Sequence[Ref] = ()) -> None:
        self._session.handle(Append([node]), 100)

    def constant(self, digest: str, tensor: torch.Tensor) -> None:
        data = bytes(raw_bytes(tensor))
        header = TensorHeader(str(tensor.dtype).removeprefix("torch."), list(tensor.shape), len(data))
        self._session.handle(PutConstant(digest, header, data), 0)

    def drop(self, ref: Ref) -> None:
        pass

    def request(self, ref: Ref, reason: str, pointer: Any) -> Any:
        raise AssertionError("nothing here is private")

    def get(self, ref: Ref, pointer: Any) -> torch.Tensor:
        reply = self._session.handle(Evaluate(1, ref, str(self._answer)), 0)
        if isinstance(reply, Failed):
            raise reply.error()
        assert isinstance(reply, Value)
        data = self._answer.read_bytes() if reply.data is None else reply.data
        dtype = DTYPES[reply.header.dtype]
        if not data:
            return torch.zeros(reply.header.shape, dtype=dtype)
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(reply.header.shape)
