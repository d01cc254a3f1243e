"""What the recorder needs from the connection to a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from gridclient.program.graph import Node, Ref


class Channel(Protocol):
    """Implemented by the SDK's node. All but `get` and `request` return at once and do no I/O."""

    node_id: str

    def append(self, node: Node, held: Sequence[Ref] = ()) -> None:
        """Queue a node of the program for sending. Called with growing ids, one call at a time.

        `held`: the values of a node that takes several ids; each is dropped once. Those of others are its outputs.
        """

    def constant(self, digest: str, tensor: torch.Tensor) -> None:
        """Make a constant known to the node: called before every node that names it.

        `tensor` is contiguous, on the CPU, and nobody else's.
        """

    def drop(self, ref: Ref) -> None:
        """Nobody holds this value any more. Called by the garbage collector: on any thread, at any moment, also
        inside another method of this object; must neither block nor raise."""

    def get(self, ref: Ref, pointer: Any) -> Any:
        """Wait for the value, exactly. Raises GetNotPermittedError and others."""

    def request(self, ref: Ref, reason: str, pointer: Any) -> Any:
        """Put the program behind the value into the node's queue."""
