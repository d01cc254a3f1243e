"""What comes and goes while a backup is made: the set holds all that its database names, or is not finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from apps.budgets import records
from apps.budgets.models import Release
from apps.datarequests import actions
from apps.datarequests.files import CONSTANTS
from gridsite.backup import databases, making
from gridsite.backup.databases import Snapshot
from gridsite.backup.making import back_up
from gridsite.backup.manifest import BackupRefusal
from tests.factories import individuals
from tests.factories.asker import Asker
from tests.factories.people import People
from tests.factories.queue import publish, submit

pytestmark = pytest.mark.django_db(transaction=True)


def asked(people: People, tmp_path: Path, name: str) -> Callable[[], None]:
    """A new request with constants; what is returned withdraws it, which removes them."""
    constants = tmp_path / f"constants of {name}"
    constants.write_bytes(b"public numbers")
    request = submit(people.scientist, publish(people.owner, name), constants_file=constants)
    return lambda: actions.withdraw(request, by=people.scientist) and None


def around_snapshots(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Let something happen just before and just after every snapshot of the database."""
    take = databases.snapshot

    def snapshot(target: Path) -> Snapshot:
        before()
        found = take(target)
        after()
        return found

    monkeypatch.setattr(databases, "snapshot", snapshot)


def test_constants_that_were_removed_after_the_snapshot_are_in_the_set(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdraw = asked(people, tmp_path, "first")
    around_snapshots(monkeypatch, lambda: None, withdraw)
    back_up(tmp_path / "set", None, operator="test")
    (kept,) = (tmp_path / "set").rglob(CONSTANTS)
    assert kept.read_bytes() == b"public numbers"
    assert not list(Path(settings.GRID_STORAGE_DIR).rglob(CONSTANTS))


def test_request_that_came_and_went_in_between_is_seen_by_doing_it_again(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Callable[[], None]] = []
    taken: list[int] = []

    def come() -> None:
        taken.append(1)
        if len(taken) < 3:
            ends.append(asked(people, tmp_path, f"number {len(taken)}"))

    around_snapshots(monkeypatch, come, lambda: ends.pop()() if ends else None)
    back_up(tmp_path / "set", None, operator="test")
    assert len(taken) == 3


def test_a_node_that_never_rests_gets_no_half_backup(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Callable[[], None]] = []
    names = iter(range(100))
    around_snapshots(
        monkeypatch, lambda: ends.append(asked(people, tmp_path, f"number {next(names)}")), lambda: ends.pop()()
    )
    with pytest.raises(BackupRefusal, match="too fast"):
        back_up(tmp_path / "set", tmp_path / "keys-apart", operator="test")
    assert not list(tmp_path.glob("set*")) and not (tmp_path / "keys-apart").exists()


def test_a_value_that_is_lost_already_is_told_not_hidden(people: People, tmp_path: Path) -> None:
    folder = publish(people.owner).current.folder
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(BackupRefusal, match="lacks a dataset's version"):
        back_up(tmp_path / "set", None, operator="test")


def test_copies_where_links_are_impossible(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(people.owner)

    def refuse(*args: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(making.os, "link", refuse)
    back_up(tmp_path / "set", None, operator="test")
    files = [path for path in (tmp_path / "set" / "storage").rglob("*") if path.is_file()]
    assert files and all(path.stat().st_nlink == 1 for path in files)


def test_what_people_were_charged_by_themselves_is_in_the_set_or_there_is_none(people: People, tmp_path: Path) -> None:
    """Without the records, everybody would begin anew after a restore."""
    visits = individuals.publish(people.owner, [0.5] * 100, range(100), individuals.town(people.owner))
    individuals.allow(visits, people.scientist, people.owner)
    asker = Asker(people.scientist, tmp_path)
    asker.take(asker.total(visits))
    release = Release.objects.get()
    pot = release.charges.get().pot_id
    (records.folder(pot) / "cache").mkdir()
    (records.folder(pot) / "cache" / "spent").write_bytes(b"made again")
    back_up(tmp_path / "set", None, operator="test")
    found = [
        path.name for path in (tmp_path / "set" / "storage" / records.FOLDER / str(pot)).rglob("*") if path.is_file()
    ]
    assert found == [release.record]
    records.place(pot, release.record).unlink()
    with pytest.raises(BackupRefusal, match=r"lacks a file .*: individual/"):
        back_up(tmp_path / "another", None, operator="test")
