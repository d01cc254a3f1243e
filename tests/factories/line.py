"""A line between clients and a server that a test can cut: after so many bytes, or at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

READ = 64 * 1024


class Line:
    """Forwards whatever comes to `url` to a server on this machine. Made by `line_to`."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.cuts = 0
        """How many connections were cut."""
        self._port = port
        self._left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def cut_after(self, nbytes: int) -> None:
        """Cut every connection once so many more bytes have passed, in whichever direction."""
        self._loop.call_soon_threadsafe(self._arm, nbytes)

    def mend(self) -> None:
        """Nothing is cut from now on."""
        self._loop.call_soon_threadsafe(self._arm, None)

    def _arm(self, nbytes: int | None) -> None:
        self._left = nbytes
        if nbytes == 0:
            self._cut()

    def _cut(self) -> None:
        self._left = None
        self.cuts += len(self._writers) // 2
        for writer in [*self._writers]:
            writer.transport.abort()

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        async with server:
            await self._stop.wait()
            self._cut()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, away = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, away}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, away), self._pump(there, writer))
        finally:
            self._writers -= both

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(READ):
                if self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data)
                sink.write(data)
                if self._left is not None and self._left <= 0:
                    await asyncio.sleep(0)  # what was let through leaves before the line is cut
                    self._cut()
                    return
                await sink.drain()
        with suppress(OSError):
            sink.close()


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line to this port of this machine."""
    line, ready = Line(port), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(line._serve(ready)))
    thread.start()
    ready.wait()
    try:
        yield line
    finally:
        line._loop.call_soon_threadsafe(line._stop.set)
        thread.join()
