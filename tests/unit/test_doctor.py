"""The doctor says what is wrong with a deployment and what to do, and says nothing where nothing is wrong."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from pytest_django.fixtures import Settings

from apps.audit import head as outside
from apps.core import clock, keys
from apps.core.database import in_database
from apps.core.metrics import REGISTRY
from apps.network import outbound
from apps.network.models import Membership, State
from gridsite import diagnosis, health
from gridsite.health import Health, Problem
from gridsite.probes import Once
from tests.unit.test_audit_log import write
from tests.unit.test_deployment_checks import PRODUCTION

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def deployed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As documented, on a machine that isolates workers; the workers themselves are a test of their own."""
    for name, value in PRODUCTION.items():
        setattr(settings, name, value)
    monkeypatch.setattr("gridsite.checks.can_isolate", lambda: True)

    async def one_started() -> str:
        return "one started"

    monkeypatch.setattr(diagnosis, "workers", one_started)
    yield
    asyncio.run(in_database(lambda: connection.close()))  # what a test made of it must not stay in the thread


def wrong() -> dict[str, str]:
    """What the doctor complains about."""
    found = asyncio.run(diagnosis.diagnose())
    return {name: f"{each.words} {each.advice}" for name, each in found.items() if isinstance(each, Problem)}


def test_good_deployment_has_no_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    write()
    call_command("doctor")
    assert "WRONG" not in capsys.readouterr().out


def test_doctor_makes_no_keys(settings: Settings) -> None:
    assert wrong() == {}
    assert not (settings.GRID_KEYS_DIR / "signing.key").exists()


def cut_head(settings: Settings) -> None:
    outside.advance(outside.Head(99, "0" * 64, "0" * 128), contains=lambda head: True)


def open_key(settings: Settings) -> None:
    (settings.GRID_KEYS_DIR / "signing.key").chmod(0o644)


def lose_key(settings: Settings) -> None:
    (settings.GRID_KEYS_DIR / "signing.key").unlink()


def leave_folder(settings: Settings) -> None:
    folder = settings.GRID_STORAGE_DIR / "sessions" / "old"
    folder.mkdir(parents=True)
    long_ago = (clock.now() - timedelta(days=3)).timestamp()
    os.utime(folder, (long_ago, long_ago))


def file_in_place_of_storage(settings: Settings) -> None:
    Path(settings.GRID_STORAGE_DIR).write_text("x")


def forget_migration(settings: Settings) -> None:
    MigrationRecorder(connection).record_unapplied("audit", "0002_append_only")


def lax_database(settings: Settings) -> None:
    def relax() -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous=NORMAL")

    asyncio.run(in_database(relax))


def full_disk(settings: Settings) -> None:
    settings.GRID_DISK_FLOOR = 2**60


def weak_secret(settings: Settings) -> None:
    settings.SECRET_KEY = "short"


def not_let_in(settings: Settings) -> None:
    Membership.objects.create(
        url="https://network.example",
        public_key="0" * 64,
        fingerprint="0" * 32,
        pinned=clock.now(),
        state=State.PENDING,
    )


ILLS: dict[str, tuple[Callable[[Settings], Any], set[str], str]] = {
    "set back": (cut_head, {"audit", "audit log"}, "verify_audit"),
    "open key": (open_key, {"key files"}, "chmod 600"),
    "lost key": (lose_key, {"audit log"}, "Put the keys back"),
    "left behind": (leave_folder, {"session folders"}, "restart"),
    "no storage": (file_in_place_of_storage, {"storage"}, "cannot be written"),
    "not migrated": (forget_migration, {"migrations"}, "manage.py migrate"),
    "lax database": (lax_database, {"database settings"}, "power cut"),
    "full disk": (full_disk, {"disk"}, "Make room"),
    "weak secret": (weak_secret, {"settings grid.E001"}, "Make one"),
}


@pytest.mark.parametrize("ill", ILLS)
def test_each_ill_is_named_alone_with_what_to_do(
    ill: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    make, names, advice = ILLS[ill]
    make(settings)
    found = wrong()
    assert set(found) == names
    assert all(advice in text for text in found.values()) or advice in " ".join(found.values())
    with pytest.raises(SystemExit) as end:
        call_command("doctor")
    assert end.value.code == 1
    assert f"{len(names)} of" in capsys.readouterr().out


def test_too_few_files_for_the_sessions_are_found(settings: Settings) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings.GRID_MAX_SESSIONS = soft
    assert set(wrong()) == {"open files"}


@pytest.mark.parametrize(
    ("ahead", "is_wrong"),
    [
        (timedelta(0), False),
        (timedelta(seconds=-3), False),
        (timedelta(minutes=5), True),
        (timedelta(minutes=-5), True),
    ],
)
def test_clock_far_from_the_networks_is_found(
    ahead: timedelta, is_wrong: bool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GRID_NETWORK_URL = "https://network.example"

    async def answer(*args: Any, **kwargs: Any) -> outbound.Reply:
        return outbound.Reply(405, b"", format_datetime(datetime.now(UTC) + ahead))

    monkeypatch.setattr(outbound, "call", answer)
    found = wrong()
    assert ("network" in found) is is_wrong
    assert "not been reached" in found["membership"]
    not_let_in(settings)
    assert "has not let this node in" in wrong()["membership"]


def test_a_network_that_does_not_answer_is_found(settings: Settings) -> None:
    settings.GRID_NETWORK_URL = "http://127.0.0.1:9"
    assert "GRID_OUTBOUND_ALLOW" in wrong()["network"]


class Dead(InMemoryChannelLayer):  # type: ignore[misc]
    async def send(self, channel: str, message: Any) -> None:
        raise ConnectionRefusedError


class Deaf(InMemoryChannelLayer):  # type: ignore[misc]
    async def send(self, channel: str, message: Any) -> None:
        pass


def test_channel_layer_is_tried_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.2)
    watch = Health(None)

    async def look(layer: Any) -> Any:
        monkeypatch.setattr(health, "get_channel_layer", lambda: layer)
        return (await watch.examine())["channel_layer"]

    async def scenario() -> None:
        layer = InMemoryChannelLayer()
        for _ in range(3):
            assert await look(layer) == "a message came back"
        for broken in (Dead(), Deaf()):
            assert isinstance(await look(broken), Problem)
        await asyncio.sleep(0.1)
        assert await look(layer) == "a message came back"

    asyncio.run(scenario())


def test_a_check_that_hangs_is_a_failure_and_not_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    started: list[int] = []

    async def look() -> dict[str, Any]:
        started.append(1)
        await asyncio.sleep(0.5)
        return {"slow": "done"}

    async def scenario() -> None:
        watch = Health(None)
        for _ in range(3):
            outcome = (await watch._patiently(["slow"], look))["slow"]
            assert isinstance(outcome, Problem)
            assert "does not answer" in outcome.words
        await asyncio.sleep(0.5)
        monkeypatch.setattr(health, "PATIENCE", 2.0)
        assert (await watch._patiently(["slow"], look)) == {"slow": "done"}

    asyncio.run(scenario())
    assert len(started) == 2


def test_a_crowd_of_probes_costs_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    async def look() -> tuple[int, str, bytes]:
        looks.append(1)
        await asyncio.sleep(0.01)
        return 200, "x", b"%d" % len(looks)

    async def scenario() -> None:
        once = Once(look)
        gone = asyncio.ensure_future(once())
        await asyncio.sleep(0)
        gone.cancel()  # who asked first goes away; the others still get the answer
        assert {answer[2] for answer in await asyncio.gather(*(once() for _ in range(200)))} == {b"1"}
        assert (await once())[2] == b"1"
        monkeypatch.setattr("gridsite.probes.FRESH", 0.0)
        once._until = 0.0
        assert (await once())[2] == b"2"

    asyncio.run(scenario())


def test_every_figure_has_a_help_and_a_prefix() -> None:
    for metric in REGISTRY.collect():
        assert metric.name.startswith("gridsite_")
        assert metric.documentation.endswith(".")


def test_a_worker_starts_for_the_doctor_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    keys.public_key()
    assert "one started" in str(asyncio.run(diagnosis.workers()))
