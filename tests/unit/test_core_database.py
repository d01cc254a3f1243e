"""The database thread: what has begun there is not left alone."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from apps.core.database import in_database


def test_who_is_cancelled_cleans_up_only_after_what_has_begun() -> None:
    """A publication that is cut while it commits must not lose the files that the commit has moved into place."""
    order: list[str] = []
    begun = threading.Event()

    def commit() -> None:
        order.append("begins")
        begun.set()
        time.sleep(0.2)
        order.append("committed")

    async def publish() -> None:
        try:
            await in_database(commit)
        finally:
            order.append("cleaned up")

    async def scenario() -> None:
        publishing = asyncio.create_task(publish())
        await asyncio.to_thread(begun.wait)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing

    asyncio.run(scenario())
    assert order == ["begins", "committed", "cleaned up"]
