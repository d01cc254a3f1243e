"""The part of a session that lives on another machine: starts the session's worker there, and carries bytes to it.

Ray starts one of these for each session (`ray_broker`). The worker itself comes from a forkserver, as it does at home:
it has the same limits, no network, and nothing of Ray. So a program that took its worker over holds no connection to
the cluster, and what this process hands to Ray are bytes, whatever they mean.

Nothing survives it: its end of the control socket closes, the forkserver leaves, and the kernel kills the worker.
"""

from __future__ import annotations

import hashlib
import platform
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec

from apps.compute.spawning import spawn
from gridclient.program.operations import OPERATIONS_VERSION

PIECE = 64 * 1024
"""Bytes of one call, each way. From 100 KiB on Ray would keep them in its object store, which it may write to disk."""
PROBES = ".ray-"
"""How files begin that show whether a machine shares the storage folder."""
Fault = Literal["version", "storage", "forkserver"]


def versions() -> str:
    """What must be the same on all machines, or programs would not have the same values."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    torch, python = version("torch"), platform.python_version()
    return f"code {code.hexdigest()[:12]}, operations {OPERATIONS_VERSION}, torch {torch}, Python {python}"


class Actor:
    """One session's. The broker makes one call of each kind at a time; `write` and `read` have a thread each."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = spawn("apps.compute.forkserver", theirs.fileno())
        self._connection: socket.socket | None = None

    def begin(self, theirs: str, probe: str, word: str) -> bool | Fault:
        """Be ready to open: whether workers here can give up the network, or what this machine lacks.

        `theirs`: `versions()` of the node. `probe`: a file in its storage folder that holds `word`; a second one is
        written beside it, which shows that what workers write here is seen there.
        """
        if theirs != versions():
            return "version"
        path = Path(probe)
        try:
            if path.read_text() != word:
                return "storage"
            path.with_suffix(".seen").write_text(word)
        except OSError:
            return "storage"
        ready = self._control.recv(64)
        return msgspec.msgpack.decode(ready, type=bool) if ready else "forkserver"

    def open(self, order: bytes) -> bool:
        """Fork the worker, by the order that the node's web process wrote. False where the forkserver has ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            socket.send_fds(self._control, [order], [theirs.fileno()])
        answer, _, _, _ = socket.recv_fds(self._control, 64, 0)
        self._connection = ours
        return bool(answer)

    def write(self, data: bytes) -> bool:
        """Hand bytes to the worker, which may be busy. False when it has ended."""
        assert self._connection is not None
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def read(self) -> bytes:
        """The next bytes that the worker says, as soon as there are any; none when it has ended."""
        assert self._connection is not None
        try:
            return self._connection.recv(PIECE)
        except OSError:
            return b""
