"""One line in the node's log when a session opens and one when it has ended: whose it is, and with which client."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger("apps.wire")
MOST = 64


def opened(key: str, *, user: str, client: str) -> Callable[[], None]:
    """Log that a session opened; what is returned logs its end. `client` is the client's own word: shortened, and made
    of one line."""
    word = "".join(each if each.isprintable() else "?" for each in client[:MOST])
    began = time.monotonic()
    logger.info("Session %s of %s opened with %s.", key[:8], user, word or "an unnamed client")
    return lambda: logger.info("Session %s of %s ended after %.0f s.", key[:8], user, time.monotonic() - began)
