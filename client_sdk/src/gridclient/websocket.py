"""The websocket under a connection: frames go straight to a callback, without the queue and task switch of `recv()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidState, InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode

from gridclient.wire.errors import ConnectionLostError, GridError, LimitExceededError
from gridclient.wire.frames import MAX_FRAME

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN_WITHIN = 10.0


class Socket(ClientConnection):
    """`on_frame` gets every binary message, `on_lost` the close code once the connection has ended."""

    on_frame: Callable[[bytes], None] | None = None
    on_lost: Callable[[int | None, str], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fragments: list[bytes] = []

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT) and self.on_frame is not None:
            if event.fin and not self._fragments:
                self.on_frame(bytes(event.data))
                return
            self._fragments.append(bytes(event.data))
            if event.fin:
                whole, self._fragments = b"".join(self._fragments), []
                self.on_frame(whole)
        elif not isinstance(event, Frame) or event.opcode is not Opcode.TEXT:
            super().process_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost(self.protocol.close_code, self.protocol.close_reason or "")

    def write(self, message: bytes) -> bool:
        """Send one binary message. False on a connection that has ended (`on_lost` tells)."""
        try:
            self.protocol.send_binary(message)
        except InvalidState:
            return False
        self.send_data()
        return True

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        # A token follows in the first frame: it goes to the address that the user or the network named, to no other.
        return exc


async def open_socket(url: str, agent: str) -> Socket:
    """Open the data websocket of the node at `url`. Raises ConnectionLostError or LimitExceededError."""
    address = url.replace("http", "ws", 1) + "/ws/grid/"
    try:
        socket = await _Connect(
            address,
            compression=None,
            max_size=MAX_FRAME,
            open_timeout=OPEN_WITHIN,
            close_timeout=1,
            user_agent_header=agent,
            proxy=None if urlsplit(url).hostname in LOOPBACK else True,
            create_connection=Socket,
        )
    except OSError as error:
        raise nobody(url) from error
    except InvalidStatus as error:
        if error.response.status_code == 403:
            raise LimitExceededError(f"The node at {url} takes no more sessions now; try again later.") from error
        raise stranger(url) from error
    except (InvalidHandshake, WebSocketException, EOFError) as error:
        raise stranger(url) from error
    assert isinstance(socket, Socket)
    return socket


def nobody(url: str) -> GridError:
    """Nobody is there."""
    return ConnectionLostError(
        f"Nobody answers at {url}. Check the address and the port, that the node is running there, "
        "and that no firewall is in between."
    )


def stranger(url: str) -> GridError:
    """Somebody is there, but not a deployment of this project."""
    return ConnectionLostError(
        f"Something answers at {url}, but it is no grid node or network. Check the address and the port."
    )
