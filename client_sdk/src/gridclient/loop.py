"""One event loop for all connections of this process, in a daemon thread that starts at the first need."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def background() -> asyncio.AbstractEventLoop:
    """The running loop."""
    global _loop
    with _lock:
        if _loop is None:
            # Not uvloop: it would be one more dependency for what the node's round trip hides.
            _loop = asyncio.SelectorEventLoop()
            threading.Thread(target=_loop.run_forever, name="gridclient", daemon=True).start()
        return _loop


def run(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, timeout: float | None = None) -> None:
    """Run a coroutine on the loop and wait until it is done; an interrupted wait ends it. Raises TimeoutError."""
    running = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        running.result(timeout)
    finally:
        running.cancel()


def _after_fork() -> None:
    # The thread stays with the parent: a child that goes on needs a loop and connections of its own.
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
