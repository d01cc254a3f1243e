"""Stands where the forkserver does when sessions run on a Ray cluster: opens an actor a session, and carries bytes.

A process of its own, because a client of Ray gives up its whole process when it loses the cluster: then this one ends,
the sessions are told so as if their workers had crashed, and the next one gets a new broker. It also keeps Ray's
connections, and the pickles that Ray speaks in, out of the process that decides.

On the control socket it speaks as the forkserver does. Its answer has no pid, and its descriptor is one end of a pipe:
when the web process closes that, the actor is killed. An answer without descriptor says that no machine has a place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError

from apps.compute.ray_actor import PIECE, PROBES, Actor, versions

logger = logging.getLogger("apps.compute.ray_broker")
PLACES = "gridsite"
"""The resource that a machine of the cluster offers, one for each session that it takes."""
SPARES = 2
FIRST = 150.0
"""Seconds until the first actor must be ready: a cluster may have to start a machine."""
PATIENCE = 45.0
"""Seconds for which a session waits for its actor; less than the web process waits for its answer."""
KNOCKS = 5.0
"""Seconds until the cluster's head must have taken a connection."""
TRIES = 2
FULL = f"No machine of the Ray cluster has a free place (resource {PLACES!r}), or none is ready in time."
FAULTS = {
    "version": "A machine of the Ray cluster has other versions than this node. This node has: {versions}.",
    "storage": "A machine of the Ray cluster does not share this node's storage folder. Mount it there, at the same "
    "path, so that the account that Ray runs as can read and write it.",
    "forkserver": "A machine of the Ray cluster cannot start workers; Ray's log of that machine says why.",
    "network": "A machine of the Ray cluster does not let workers give up the network, though others do.",
}


class NotReadyError(Exception):
    """No actor can be had. Its text is for the operator."""


class Broker:
    """The actors of one web process: one for each session, and spare ones, so that the next need not wait for torch."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._spares: set[asyncio.Task[Any]] = set()
        self._isolated: bool | None = None
        remote: Any = ray.remote  # its types leave concurrency groups out
        self._made = remote(
            num_cpus=0,
            resources={PLACES: 1},
            max_restarts=0,
            scheduling_strategy="SPREAD",
            concurrency_groups={"reading": 1},
        )(Actor)

    async def begin(self) -> bool:
        """Have the first actor ready. Returns whether workers are without network; raises NotReadyError."""
        first = asyncio.create_task(self._actor())
        self._spares.add(first)
        await asyncio.wait([first], timeout=FIRST)
        if not first.done():
            raise NotReadyError(FULL)
        first.result()
        self._fill()
        return self._isolated is True

    async def opened(self, order: bytes) -> Any:
        """An actor whose worker runs. Raises NotReadyError."""
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(TRIES):
                    actor = await self._next()
                    try:
                        if await actor.open.remote(order):
                            return actor
                    except RayError as error:
                        logger.warning("A machine of the Ray cluster failed (%s).", type(error).__name__)
                    ray.kill(actor)
        except TimeoutError:
            raise NotReadyError(FULL) from None
        raise NotReadyError("Actors of the Ray cluster end before they open; Ray's logs say why.")

    async def _next(self) -> Any:
        """The next actor that is ready. One that is only waiting for a place goes on waiting, for the next session."""
        self._fill()
        done, _ = await asyncio.wait(self._spares, return_when=asyncio.FIRST_COMPLETED)
        spare = done.pop()
        self._spares.discard(spare)
        self._fill()
        return spare.result()

    def _fill(self) -> None:
        while len(self._spares) < SPARES:
            self._spares.add(asyncio.create_task(self._actor()))

    async def _actor(self) -> Any:
        """An actor that is ready to open, however long that takes. Raises NotReadyError."""
        # Whoever kills this process removes what it left, by its pid.
        probe, word = self._storage / f"{PROBES}{os.getpid()}-{secrets.token_hex(8)}", secrets.token_hex(16)
        seen = probe.with_suffix(".seen")
        actor = self._made.remote()
        try:
            self._storage.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe.write_text(word)
            found = await actor.begin.remote(versions(), str(probe), word)
            if isinstance(found, bool) and (not seen.exists() or seen.read_text() != word):
                found = "storage"
            if found is False and self._isolated:
                found = "network"
            if isinstance(found, str):
                raise NotReadyError(FAULTS[found].format(versions=versions()))
        except RayError as error:
            raise NotReadyError(f"A machine of the Ray cluster failed ({type(error).__name__}).") from None
        except BaseException:
            ray.kill(actor)
            raise
        finally:
            probe.unlink(missing_ok=True)
            seen.unlink(missing_ok=True)
        self._isolated = found
        return actor


async def carry(actor: Any, connection: socket.socket, line: int) -> None:
    """Carry one session's bytes until the web process closes the line, or the worker ends."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(line, closed.set)
    ways = [asyncio.create_task(way) for way in (_there(actor, connection), _back(actor, connection), closed.wait())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(line)
        ray.kill(actor)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        connection.close()
        os.close(line)


async def _there(actor: Any, connection: socket.socket) -> None:
    """To the worker. One call at a time: they stay in order, and what comes meanwhile goes with the next."""
    loop = asyncio.get_running_loop()
    with suppress(RayError, OSError):
        while (data := await loop.sock_recv(connection, PIECE)) and await actor.write.remote(data):
            pass


async def _back(actor: Any, connection: socket.socket) -> None:
    """From the worker: one call waits for what it says."""
    loop = asyncio.get_running_loop()
    read = actor.read.options(concurrency_group="reading")
    with suppress(RayError, OSError):
        while data := await read.remote():
            await loop.sock_sendall(connection, data)


async def serve(control: socket.socket, storage: Path) -> None:
    """Open an actor for each packet, until the web process is gone."""
    broker = Broker(storage)
    try:
        control.send(msgspec.msgpack.encode(await broker.begin()))
    except NotReadyError as error:
        control.send(msgspec.msgpack.encode(str(error)))
        return
    orders: asyncio.Queue[tuple[bytes, socket.socket]] = asyncio.Queue()
    gone = asyncio.Event()

    def on_packet() -> None:
        order, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if order:
            orders.put_nowait((order, socket.socket(fileno=descriptors[0])))
        else:
            asyncio.get_running_loop().remove_reader(control.fileno())
            gone.set()

    asyncio.get_running_loop().add_reader(control.fileno(), on_packet)
    answering = asyncio.create_task(_answer(control, broker, orders))
    await gone.wait()
    answering.cancel()


async def _answer(control: socket.socket, broker: Broker, orders: asyncio.Queue[tuple[bytes, socket.socket]]) -> None:
    """Answer each order with an end of the session's line; with none where it has no actor."""
    sessions: set[asyncio.Task[None]] = set()
    nobody = msgspec.msgpack.encode(None)
    while True:
        order, connection = await orders.get()
        try:
            actor = await broker.opened(order)
        except NotReadyError as error:
            logger.error("%s", error)
            connection.close()
            control.send(nobody)
            continue
        connection.setblocking(False)
        line, theirs = os.pipe()
        task = asyncio.create_task(carry(actor, connection, line))
        sessions.add(task)
        task.add_done_callback(sessions.discard)
        socket.send_fds(control, [nobody], [theirs])
        os.close(theirs)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    address, storage = sys.argv[2], Path(sys.argv[3])
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        # Ray itself would try for minutes.
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), KNOCKS).close()
        # What actors print stays in Ray's own logs.
        ray.init(address=address, configure_logging=False, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        text = f"No Ray cluster can be reached at {address} ({type(error).__name__}): see GRID_RAY_ADDRESS."
        control.send(msgspec.msgpack.encode(text))
        return
    asyncio.run(serve(control, storage))


if __name__ == "__main__":
    main()
