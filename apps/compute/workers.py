"""The seam to the workers: start a session's worker, send it messages, ask it questions, end it. Web side, asyncio.

Nothing above this module knows where a worker runs. One process a session is forked from a forkserver that has torch
loaded; a message is `u32 length · MessagePack` on a socket pair. Where the node has a Ray cluster, a broker stands in
the forkserver's place, and carries the same bytes to a worker on another machine (`ray_broker`).

A worker that crashes, or that overruns its deadline and is killed, looks the same for every reason: the texts are
fixed, so that they cannot depend on private values.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from apps.compute.messages import LENGTH, Failed, Limits, Order, Question, Reply, decode_reply, encode
from apps.compute.ray_actor import PROBES
from apps.compute.spawning import spawn
from apps.core import metrics
from gridclient.wire.errors import GridError, InternalError, LimitExceededError

READ = 256 * 1024
START_SECONDS, CLUSTER_SECONDS = 60.0, 180.0
MAX_REPLY = 256 * 2**20
BACKLOG = 8 * 2**20
"""Bytes that may wait for a busy worker before `drain` (and `ask`) wait too."""

CRASHED = "The session's worker stopped. Nothing was given out; ask again to go on."
NO_WORKER = "No worker could be started. Try again in a moment."


@dataclass(frozen=True, slots=True)
class Cluster:
    """Ray's address, `host:port`, and the node's storage folder, which its machines share at the same path."""

    address: str
    storage: Path


class Worker:
    """One session's process. Made by `Workers.open`; all methods belong to the event loop that opened it."""

    def __init__(self, connection: socket.socket, handle: int, pid: int | None, limits: Limits, isolated: bool) -> None:
        """`handle`: a descriptor of the process, or, on another machine, of what ends it when it is closed."""
        self.pid = pid
        """None where it runs on another machine."""
        self.limits = limits
        self.isolated = isolated
        """Whether the kernel let the worker give up the network."""
        self._loop = asyncio.get_running_loop()
        self._connection: socket.socket | None = connection
        self._handle = handle
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[int, asyncio.Future[Reply]]] = {}
        self._received = bytearray()
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._reason: GridError | None = None
        self.on_end: Callable[[], None] | None = None
        """Called once, when the process has ended and whoever waited for it was told."""
        connection.setblocking(False)
        metrics.WORKERS.inc()
        self._loop.add_reader(connection.fileno(), self._on_readable)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._connection is not None

    def send(self, message: Order) -> None:
        """Send without waiting. Raises what ended the worker, if it ended."""
        self._write(encode(message))

    async def drain(self) -> None:
        """Wait until at most `BACKLOG` bytes are unsent: what a fast client must wait for."""
        await self._drained.wait()

    async def ask(self, message: Question, *, deadline: float | None = None) -> Reply:
        """Send a question and wait for its reply. `deadline` in seconds, by default the session's.

        Raises the error that the worker tells, LimitExceededError when the deadline passed (the worker is killed
        then), InternalError when the worker crashed.
        """
        await self._drained.wait()
        seconds = self.limits.deadline if deadline is None else deadline
        number = next(self._numbers)
        self._write(encode(msgspec.structs.replace(message, ask=number)))
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = (message.ask, future)
        timer = self._loop.call_later(seconds, self._overrun, seconds)
        try:
            reply = await future
        finally:
            timer.cancel()
            self._waiting.pop(number, None)
        if isinstance(reply, Failed):
            raise reply.error()
        return reply

    def kill(self) -> None:
        """End the process at once. Questions still waiting get an InternalError."""
        self._end(InternalError(CRASHED), how="closed")

    # --- below: the socket ---

    def _write(self, data: bytes) -> None:
        if self._connection is None:
            raise self._reason or InternalError(CRASHED)
        view = memoryview(data)
        if not self._unsent:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:
                pass
            except OSError:
                self._end(InternalError(CRASHED))
                raise InternalError(CRASHED) from None
            if not view:
                return
            self._loop.add_writer(self._connection.fileno(), self._on_writable)
        self._unsent.append(view)
        self._unsent_bytes += len(view)
        if self._unsent_bytes > BACKLOG:
            self._drained.clear()

    def _on_writable(self) -> None:
        assert self._connection is not None
        try:
            while self._unsent:
                sent = self._connection.send(self._unsent[0])
                self._unsent_bytes -= sent
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    break
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._end(InternalError(CRASHED))
            return
        if self._unsent_bytes <= BACKLOG:
            self._drained.set()
        if not self._unsent:
            self._loop.remove_writer(self._connection.fileno())

    def _on_readable(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(InternalError(CRASHED))
            return
        self._received += data
        while len(self._received) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._received)
            if size > MAX_REPLY:
                self._end(InternalError(CRASHED))
                return
            end = LENGTH.size + size
            if len(self._received) < end:
                return
            body = bytes(self._received[LENGTH.size : end])
            del self._received[:end]
            try:
                reply = decode_reply(body)
            except (msgspec.MsgspecError, RecursionError):
                self._end(InternalError(CRASHED))
                return
            asked, future = self._waiting.get(reply.ask, (0, None))
            if future is not None and not future.done():
                future.set_result(msgspec.structs.replace(reply, ask=asked))

    def _overrun(self, seconds: float) -> None:
        self._end(
            LimitExceededError(
                f"This took longer than {seconds:g} seconds and was stopped. Ask for less, or in smaller steps.",
                limit=seconds,
            ),
            how="overrun",
        )

    def _end(self, reason: GridError, *, how: str = "crashed") -> None:
        if self._connection is None:
            return
        self._reason = reason
        metrics.WORKERS.dec()
        metrics.WORKERS_ENDED.labels(how).inc()
        descriptor = self._connection.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._connection.close()
        self._connection = None
        self._unsent.clear()
        self._drained.set()
        if self.pid is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(type(reason)(reason.message, **reason.details))
        if self.on_end is not None:
            self.on_end()


def _unwanted(opening: asyncio.Future[Worker]) -> None:
    """Nobody waits for this worker any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().kill()


class Workers:
    """All workers of this process, and the forkserver they come from. `close` ends every one of them."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        """`cluster`: where they run; None: on this machine."""
        self._cluster = cluster
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._open: list[Worker] = []
        self.isolated = False
        """Whether the kernel lets workers give up the network; known once started."""

    @property
    def alive(self) -> list[Worker]:
        """Those that can still be asked."""
        return [worker for worker in self._open if worker.alive]

    @property
    def forkserver(self) -> int | None:
        """Its process id, while there is one."""
        return None if self._server is None else self._server.pid

    async def start(self) -> None:
        """Start the forkserver (a second or two); `open` does it too when nobody did."""
        async with self._lock:
            await self._started()

    async def open(
        self, session_id: str, limits: Limits, folder: Path, on_end: Callable[[], None] | None = None
    ) -> Worker:
        """A new worker, ready in about 30 ms. `folder` is the session's own, for long values and constants.

        Whoever is cancelled meanwhile leaves none. Raises InternalError when no process can be started.
        """
        opening = asyncio.create_task(self._open_one(session_id, limits, folder, on_end))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The forkserver answers in any case: unread, its answer would give the next session this one's process.
            opening.add_done_callback(_unwanted)
            raise

    async def _open_one(
        self, session_id: str, limits: Limits, folder: Path, on_end: Callable[[], None] | None
    ) -> Worker:
        async with self._lock:
            try:
                worker = await self._forked(session_id, limits, folder)
            except OSError:
                # The forkserver has just ended, which nobody knew; what a session said must not be lost by that.
                self._stop()
                try:
                    worker = await self._forked(session_id, limits, folder)
                except OSError as error:
                    self._stop()
                    raise InternalError(NO_WORKER) from error
            self._open = self.alive
            worker.on_end = on_end
            self._open.append(worker)
            return worker

    async def _forked(self, session_id: str, limits: Limits, folder: Path) -> Worker:
        """One from the forkserver. Raises OSError where that is gone."""
        control = await self._started()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                order = msgspec.msgpack.encode([session_id, limits, str(folder)])
                socket.send_fds(control, [order], [theirs.fileno()])
            await self._readable(control)
            answer, descriptors, _, _ = socket.recv_fds(control, 64, 1)
            if not answer:
                raise OSError("the forkserver is gone")
            if not descriptors:
                raise InternalError(NO_WORKER)
        except (OSError, InternalError):
            ours.close()
            raise
        return Worker(ours, descriptors[0], msgspec.msgpack.decode(answer, type=int | None), limits, self.isolated)

    @property
    def up(self) -> bool:
        """Whether a forkserver runs, so that the next worker is there in a moment."""
        return self._server is not None and self._server.poll() is None

    @property
    def pids(self) -> list[int]:
        """The workers of this machine that are alive."""
        return [worker.pid for worker in self.alive if worker.pid is not None]

    async def close(self) -> None:
        """Kill every worker and the forkserver."""
        async with self._lock:
            for worker in self._open:
                worker.kill()
            self._open.clear()
            self._stop()

    async def _started(self) -> socket.socket:
        """The control socket of a forkserver that is ready."""
        if self._control is not None and self._server is not None and self._server.poll() is None:
            return self._control
        self._stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = self._spawned(theirs.fileno())
        ours.setblocking(False)
        self._control = ours
        await self._readable(ours, START_SECONDS if self._cluster is None else CLUSTER_SECONDS)
        ready = ours.recv(1024)
        found = msgspec.msgpack.decode(ready, type=bool | str) if ready else "the node's log says why."
        if isinstance(found, str):
            self._stop()
            raise InternalError(f"Workers could not be started: {found}")
        self.isolated = found
        return ours

    def _spawned(self, control: int) -> subprocess.Popen[bytes]:
        if self._cluster is None:
            return spawn("apps.compute.forkserver", control)
        # What Ray's client must know of its cluster: certificates, tokens (or their folder), ports.
        own = {name: value for name, value in os.environ.items() if name.startswith("RAY_") or name == "HOME"}
        where = self._cluster.address, str(self._cluster.storage)
        # Ray is open to everybody who reaches it unless it is told otherwise; so must we be, to use it like that.
        safe = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        return spawn("apps.compute.ray_broker", control, *where, more=safe | own)

    @staticmethod
    async def _readable(control: socket.socket, seconds: float = START_SECONDS) -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.add_reader(control.fileno(), event.set)
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError as error:
            raise OSError("the forkserver does not answer") from error
        finally:
            loop.remove_reader(control.fileno())

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            if self._cluster is not None:
                for probe in self._cluster.storage.glob(f"{PROBES}{self._server.pid}-*"):
                    probe.unlink(missing_ok=True)
            self._server = None
