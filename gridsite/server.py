"""How a deployment is served: uvicorn with the figures of the wire's design, in development as in production."""

from __future__ import annotations

import socket
import time

import uvicorn

from gridclient.wire.frames import MAX_FRAME
from gridsite.impatient import ImpatientProtocol

GRACE = 5
"""Seconds that open connections get to end when the server is stopped."""


def listen(host: str, port: int, *, patience: float = 2.0) -> socket.socket:
    """A listening socket on `port` (0: any free one). Raises OSError when the port stays in use.

    Patience covers a predecessor that was killed and whose memory the kernel is still taking down.
    """
    end = time.monotonic() + patience
    while True:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError:
            listener.close()
            if time.monotonic() >= end:
                raise
            time.sleep(0.05)
        else:
            return listener


def serve(listener: socket.socket, *, proxies: list[str]) -> None:
    """Serve `gridsite.asgi` until SIGTERM or SIGINT. Of a client's address, the word of `proxies` is taken."""
    config = uvicorn.Config(
        "gridsite.asgi:application",
        loop="uvloop",
        http=ImpatientProtocol,
        # The one implementation with back-pressure; deflate makes tensors slower, never smaller.
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        # Its default waits for ever on open sockets.
        timeout_graceful_shutdown=GRACE,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Without a proxy in front, a client must not choose the address that it is locked out by.
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
    )
    uvicorn.Server(config).run(sockets=[listener])
