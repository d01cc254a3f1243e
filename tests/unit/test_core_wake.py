"""What is committed in one process wakes the others, and nothing fails because Redis is away."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import pytest
from channels.layers import channel_layers
from django.core.cache import caches
from django.db import transaction
from django.test import override_settings

from apps.core import clock, wake
from apps.core.database import in_database
from apps.core.logs import OnceAMinute
from apps.network.once import check_rate
from gridclient.wire.errors import LimitExceededError
from tests.factories import databases

AWAY = "unix:///nowhere/redis.sock"


def with_redis(address: str) -> Any:
    layer = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [{"address": address}]}}
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": address}
    channel_layers.backends.clear()
    return override_settings(
        GRID_REDIS_URL=address,
        CHANNEL_LAYERS={"default": layer},
        CACHES={"default": cache, "process": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    )


@pytest.fixture(autouse=True)
def own_layers() -> Any:
    yield
    channel_layers.backends.clear()


# An operator's command: another process, without a loop.
COMMAND = """
import sys
from django.conf import settings
layer = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [{"address": sys.argv[1]}]}}
settings.configure(GRID_REDIS_URL=sys.argv[1], CHANNEL_LAYERS={"default": layer}, DATABASES={"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
from django.db import transaction
from apps.core.wake import wake
with transaction.atomic():
    wake("tokens")
"""


def test_a_command_of_another_process_wakes_who_listens_here() -> None:
    address = databases.redis_url()

    async def main() -> None:
        hearing = asyncio.create_task(wake.hear())
        event = wake.listen("tokens")
        async with asyncio.timeout(10):
            await event.wait()  # it looks once when it begins to hear: what was said before is lost
        event.clear()
        command = [sys.executable, "-c", COMMAND, address]
        assert await asyncio.to_thread(subprocess.call, command) == 0
        async with asyncio.timeout(5):
            await event.wait()
        wake.forget("tokens", event)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)

    with with_redis(address):
        asyncio.run(main())


@pytest.mark.django_db(transaction=True)
def test_without_redis_who_listens_here_is_woken_all_the_same(caplog: Any) -> None:
    async def main() -> None:
        event = wake.listen("tokens")

        def change() -> None:
            with transaction.atomic():
                wake.wake("tokens")

        await in_database(change)
        async with asyncio.timeout(1):
            await event.wait()
        wake.forget("tokens", event)

    with with_redis(AWAY):
        asyncio.run(main())
    assert [record.name for record in caplog.records] == ["apps.core.wake"]


def test_without_redis_each_process_counts_strangers_by_itself() -> None:
    with with_redis(AWAY):
        caches["process"].clear()
        now = clock.now()
        for _ in range(3):
            check_rate("challenge", "198.51.100.7", per_minute=3, now=now)
        with pytest.raises(LimitExceededError):
            check_rate("challenge", "198.51.100.7", per_minute=3, now=now)


def test_an_outage_is_one_line_a_minute_without_a_traceback() -> None:
    quiet = OnceAMinute()
    records = []
    for _ in range(2):
        error = ConnectionError("closed")
        record = logging.LogRecord("x", logging.ERROR, "", 1, "It failed", None, (type(error), error, None))
        if quiet.filter(record):
            records.append((record.getMessage(), record.exc_info))
    assert records == [("It failed (ConnectionError)", None)]
