"""Looks after the token behind a conversation: what it may do ends with it, wherever it was revoked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from apps.accounts.queries import user_of_live_token
from apps.compute.release import Caller
from apps.core.clock import now
from apps.core.database import in_database
from apps.core.wake import forget, listen
from apps.wire.answers import INTERNAL
from gridclient.wire.errors import GridError, InternalError

logger = logging.getLogger(__name__)
LOOK_AGAIN = 30.0


class Guard:
    """Of one conversation. It looks while it is `listening`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.doubt = asyncio.Event()
        """Set when the token may have ended since it was looked up last."""
        self._checking = asyncio.Lock()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Doubt the token, now and whenever one is revoked."""
        self.doubt = listen("tokens")
        self.doubt.set()
        try:
            yield
        finally:
            forget("tokens", self.doubt)

    async def check(self) -> None:
        """Raise AuthenticationError when the token counts no longer. Asks the database only where there is doubt."""
        async with self._checking:
            if self.doubt.is_set():
                self.doubt.clear()
                try:
                    await in_database(user_of_live_token, self._caller.token)
                except BaseException:
                    self.doubt.set()
                    raise

    async def ended(self) -> GridError:
        """Wait until the token expires or is revoked, or its account is closed; the error that says so."""
        try:
            while True:
                await self.check()
                left = (self._caller.expires - now()).total_seconds()
                try:
                    async with asyncio.timeout(max(0.1, min(LOOK_AGAIN, left))):
                        await self.doubt.wait()
                except TimeoutError:
                    # Another process may have revoked it: nobody wakes us for that.
                    self.doubt.set()
        except GridError as error:
            return error
        except Exception:
            # Whoever cannot be looked up is nobody.
            logger.exception("A session's token could not be looked at.")
            return InternalError(INTERNAL)
