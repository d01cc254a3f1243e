"""One line in the node's log when a session opens and one when it has ended: whose it is, and with which client."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from apps.core import logs

logger = logging.getLogger("apps.wire")
MOST = 64


@contextmanager
def session(key: str, *, user: str, client: str) -> Iterator[None]:
    """Log a session around its life. `client` is the client's own word: shortened, and made of one line."""
    word = "".join(each if each.isprintable() else "?" for each in client[:MOST])
    began = time.monotonic()
    logs.about(session=key[:8], user=user)
    mine = copy_context()  # whose task ends it may be another session's, which needs the place
    logger.info("Session %s of %s opened with %s.", key[:8], user, word or "an unnamed client")
    try:
        yield
    finally:
        mine.run(logger.info, "Session %s of %s ended after %.0f s.", key[:8], user, time.monotonic() - began)
