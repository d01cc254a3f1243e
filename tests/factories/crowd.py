"""A crowd on a live node: sockets that only stay open, and others that ask again and again. From one event loop.

`python -m tests.factories.crowd` for a process of its own, see `main`.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from gridclient.program.graph import CONSTANT, Node, Ref, tensor_digest
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.frames import MAX_FRAME, pack_batch, unpack

AT_ONCE = 16
"""Sockets that say hello at a time: fewer than a node lets wait from one address."""
SPARE_FILES = 256


@dataclass
class Crowd:
    """What a crowd met. `errors`: what was answered other than as it should be, and sockets that ended."""

    asks: int = 0
    errors: list[str] = field(default_factory=list)
    round_trips: list[float] = field(default_factory=list)
    """Seconds of websocket pings on a socket that does nothing else: what its event loop keeps everybody waiting."""


class Member:
    """One open session."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._batches, self._asks, self._ids = count(2), count(1), count(2)
        self._seen = 0

    @classmethod
    async def join(cls, url: str, token: str, sockets: AsyncExitStack) -> Member:
        address = url.replace("http", "ws", 1) + "/ws/grid/"
        member = cls(await sockets.enter_async_context(connect(address, compression=None, max_size=MAX_FRAME)))
        await member._say(1, [m.Hello(token, m.PROTOCOL_VERSION, OPERATIONS_VERSION, "crowd")])
        (welcome,) = await member._heard()
        assert isinstance(welcome, m.Welcome), welcome
        return member

    async def _say(self, number: int, commands: list[Any]) -> None:
        await self._socket.send(pack_batch(m.encode(m.ClientBatch(number, commands, self._seen))))

    async def _heard(self) -> list[Any]:
        batch = m.decode_node(unpack(await self._socket.recv(decode=False)).body)
        self._seen = max(self._seen, batch.id)
        return list(batch.commands)

    async def begin(self, values: np.ndarray) -> None:
        """Give the session a constant, as value 1."""
        data, shape = values.tobytes(), list(values.shape)
        digest = tensor_digest("float64", shape, data)
        header = m.TensorHeader("float64", shape, len(data))
        await self._say(
            next(self._batches), [m.Constant(digest, header, data), m.Run([Node(1, CONSTANT, [digest], {}, 1)])]
        )

    async def doubled(self) -> np.ndarray:
        """Ask for twice the constant, and drop it."""
        value, ask = Ref(next(self._ids)), next(self._asks)
        node = Node(value.node, "aten::add.Tensor", [Ref(1), Ref(1)], {}, 1)
        await self._say(next(self._batches), [m.Run([node]), m.Get(ask, value)])
        while not (heard := await self._heard()):
            pass
        (answer,) = heard
        assert isinstance(answer, m.Answer) and answer.data is not None, answer
        await self._say(next(self._batches), [m.Drop([value])])
        return np.frombuffer(answer.data)

    async def ping(self) -> float:
        """Seconds of a round trip that only the event loop takes part in."""
        begin = time.perf_counter()
        await (await self._socket.ping())
        return time.perf_counter() - begin

    @property
    def open(self) -> bool:
        return self._socket.close_code is None


async def gather(
    url: str, token: str, *, idle: int, busy: int, seconds: float, pause: float, ready: Callable[[], None]
) -> Crowd:
    """`idle` sessions that say nothing, and `busy` ones that ask every `pause` seconds, for so many seconds.

    `ready` is called once all of them are there and each busy one has had an answer.
    """
    found, values = Crowd(), np.arange(4.0)
    async with AsyncExitStack() as sockets:
        gate = asyncio.Semaphore(AT_ONCE)

        async def join() -> Member:
            async with gate:
                return await Member.join(url, token, sockets)

        members = await asyncio.gather(*(join() for _ in range(idle + busy + 1)))
        probe, askers = members[0], members[1 : busy + 1]

        async def ask(member: Member) -> None:
            answer = await member.doubled()
            found.asks += 1
            if not np.array_equal(answer, 2 * values):
                found.errors.append(f"{answer} is wrong")

        for member in askers:
            await member.begin(values)
            await ask(member)
        ready()
        end = time.monotonic() + seconds

        async def again(place: int, act: Callable[[], Any], every: float) -> None:
            due = time.monotonic() + every * place / max(busy, 1)  # not all of them at once
            while time.monotonic() < end:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + every, time.monotonic())
                try:
                    await act()
                except Exception as error:  # whatever it is, it is one
                    found.errors.append(repr(error))
                    return

        async def look() -> None:
            found.round_trips.append(await probe.ping())

        await asyncio.gather(
            again(0, look, 0.02), *(again(n, lambda asker=each: ask(asker), pause) for n, each in enumerate(askers))
        )
        found.errors += ["a socket ended" for member in members if not member.open]
    return found


def main() -> None:
    """Arguments: url, token, idle, busy, seconds, pause. Prints "ready", and at the end a line of JSON."""
    url, token, idle, busy, seconds, pause = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(idle) + int(busy) + SPARE_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    crowd = asyncio.run(
        gather(
            url,
            token,
            idle=int(idle),
            busy=int(busy),
            seconds=float(seconds),
            pause=float(pause),
            ready=lambda: print("ready", flush=True),
        )
    )
    print(json.dumps(vars(crowd)))


if __name__ == "__main__":
    main()
