"""How a socket is opened and greeted, and opened again when it was lost."""

from __future__ import annotations

import asyncio
import logging
import time

from gridclient import backoff, settings
from gridclient.batches import hello
from gridclient.dialogue import Dialogue
from gridclient.failures import cut_off, given_up
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.websocket import nobody, open_socket
from gridclient.wire import messages as m
from gridclient.wire.errors import (
    AuthenticationError,
    ConnectionLostError,
    GridError,
    InvalidInputError,
    SessionStoppedError,
    VersionMismatchError,
    from_code,
)
from gridclient.wire.frames import unpack

logger = logging.getLogger("gridclient")
CLIENT = "gridclient 0.1.0"
WELCOME_WITHIN = 15.0
FINAL = (AuthenticationError, InvalidInputError, SessionStoppedError, VersionMismatchError)
"""Answers to a hello that the next one would get too."""


async def greet(dialogue: Dialogue, url: str, token: str) -> None:
    """Open a socket, say hello, and have the dialogue go on over it.

    Raises ConnectionLostError, LimitExceededError (now is a bad moment), AuthenticationError, VersionMismatchError.
    """
    socket = await open_socket(url, CLIENT)
    welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_frame(data: bytes) -> None:
        # Handled here and now: what the node says after its welcome may be in the same packet.
        try:
            batch = m.decode_node(unpack(data).body)
            match batch.commands:
                case [m.Welcome() as welcome]:
                    check_protocol(welcome)
                    dialogue.attach(socket, welcome, batch.seen)
                case [m.Goodbye(code=code, message=message)]:
                    raise from_code(code, message, {})
                case _:
                    raise ConnectionLostError(f"The node at {url} answered with something else than a welcome.")
        except GridError as error:
            if not welcomed.done():
                welcomed.set_exception(error)
        else:
            welcomed.set_result(None)

    def on_lost(code: int | None, reason: str) -> None:
        if not welcomed.done():
            welcomed.set_exception(cut_off(code, reason))

    socket.on_frame, socket.on_lost = on_frame, on_lost
    try:
        if not socket.write(hello(_hello(dialogue, token), dialogue.batches.received)):
            on_lost(None, "")
        await asyncio.wait_for(welcomed, WELCOME_WITHIN)
    except TimeoutError:
        raise nobody(url) from None
    finally:
        if dialogue.socket is not socket:
            socket.abort()


def _hello(dialogue: Dialogue, token: str) -> m.Hello:
    resume = "" if dialogue.welcome is None else dialogue.welcome.resume
    return m.Hello(token, m.PROTOCOL_VERSION, OPERATIONS_VERSION, CLIENT, resume)


def check_protocol(welcome: m.Welcome) -> None:
    """Raise VersionMismatchError unless both ends speak the same protocol."""
    if welcome.protocol != m.PROTOCOL_VERSION:
        raise VersionMismatchError(
            f"The node speaks protocol {welcome.protocol}, this gridclient {m.PROTOCOL_VERSION}: upgrade the older one."
        )


class Reconnection:
    """The attempts to bring a dialogue's lost socket back."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.attempt = 0
        self._dialogue = dialogue
        self._task: asyncio.Task[None] | None = None
        self._pauses = backoff.pauses()
        self._back = 0.0

    @property
    def under_way(self) -> bool:
        """Whether the socket is lost and may yet come back."""
        return self._task is not None and not self._task.done()

    def begin(self, url: str, token: str, why: GridError) -> None:
        """Bring the socket back, at once and then with ever longer pauses. On the loop."""
        logger.warning("The connection to %s was lost; reconnecting. %s", url, why.message)
        # A socket that was lost as soon as it was back is no reason to begin with short pauses again.
        if time.monotonic() - self._back > backoff.LONGEST:
            self.attempt, self._pauses = 0, backoff.pauses()
        self._task = asyncio.get_running_loop().create_task(self._run(url, token, why.message))

    def cancel(self) -> None:
        """Try no longer. On the loop."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, url: str, token: str, last: str) -> None:
        lost, tried = time.monotonic(), 0
        for pause in self._pauses:
            left = lost + settings.reconnect_for - time.monotonic()
            if left <= 0:
                break
            await asyncio.sleep(min(pause, left))
            self.attempt, tried = self.attempt + 1, tried + 1
            try:
                async with asyncio.timeout(max(1.0, left)):
                    await greet(self._dialogue, url, token)
                self._back = time.monotonic()
                return
            except FINAL as error:
                self._dialogue.fail(error)
                return
            except TimeoutError:
                last = "It took too long."
            except GridError as error:
                last = error.message
        self._dialogue.fail(given_up(url, time.monotonic() - lost, tried, last))
