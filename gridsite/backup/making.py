"""Make a backup of a deployment that goes on working.

The database first, then the storage. A file is complete and durable before a row of the database names it, and a
version's files never change, so that whatever the snapshot names is there when the storage is walked afterwards; what
is walked beyond it belongs to nobody yet, and a start removes it. One kind of file is removed again: constants of
requests, once they were answered. So the storage is walked once before the snapshot too, and where a request still came
and went between, all is done again. At the end the set is held against the snapshot: nothing it names may be missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction

from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.budgets.records import FOLDER as INDIVIDUAL
from apps.core import clock, keys
from apps.core.durable import sync
from apps.datarequests.files import CONSTANTS
from apps.datarequests.models import MAY_RUN, DataRequest
from gridsite.backup import databases, manifest
from gridsite.backup.databases import Snapshot
from gridsite.backup.manifest import BackupRefusal

ATTEMPTS = 5
KEPT = ("datasets", "requests", "crowds", INDIVIDUAL)
"""Folders of the storage that last; the others belong to sessions that are open."""


def back_up(target: Path, keys_target: Path | None, *, operator: str) -> str:
    """Write a backup set to `target`, which must not exist, and copies of the keys to `keys_target`.

    Returns the sha256 of the manifest. Raises BackupRefusal; then there is no `target`.
    """
    target = target.resolve()
    keys_target = keys_target.resolve() if keys_target is not None else None
    _check_places(target, keys_target)
    aside = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700, parents=True)
    try:
        digest = _write_set(aside)
        if keys_target is not None:
            place_keys(key_files(Path(settings.GRID_KEYS_DIR)), keys_target)
        os.rename(aside, target)
        sync(target.parent)
    except BaseException:
        for unfinished in (aside, keys_target):
            if unfinished is not None:
                shutil.rmtree(unfinished, ignore_errors=True)
        raise
    with transaction.atomic():
        record(Verb.BACKUP_MADE, by=None, target=f"backup:{digest}", operator=operator, with_keys=bool(keys_target))
    return digest


def _check_places(target: Path, keys_target: Path | None) -> None:
    storage, own_keys = Path(settings.GRID_STORAGE_DIR).resolve(), Path(settings.GRID_KEYS_DIR).resolve()
    for place, name in ((target, "--to"), (keys_target, "--keys")):
        if place is None:
            continue
        if place.exists():
            raise BackupRefusal(f"{name} exists already: {place}. A backup is written once, to a folder of its own.")
        if any(_inside(place, own) for own in (storage, own_keys)):
            raise BackupRefusal(f"{name} is inside what is backed up: {place}.")
    if keys_target is not None and (_inside(keys_target, target) or _inside(target, keys_target)):
        raise BackupRefusal("Keys do not belong into the backup set: who finds the one must not find the other.")


def _inside(place: Path, folder: Path) -> bool:
    return place == folder or folder in place.parents


def _write_set(folder: Path) -> str:
    made = clock.now()
    database, storage = folder / databases.FILES[connection.vendor], folder / "storage"
    for _ in range(ATTEMPTS):
        database.unlink(missing_ok=True)
        _copy_storage(storage)
        found = databases.snapshot(database)
        _copy_storage(storage)
        if not _came_and_went(found, storage):
            break
    else:
        raise BackupRefusal("Requests come and go too fast for a backup. Try again when the node is less busy.")
    _check_complete(found, storage)
    os.sync()  # once for all of it, before the manifest says that it is there
    named = {path: manifest.entry(file) for path, file in manifest.files_of(folder).items()}
    return manifest.write(
        folder,
        manifest.Manifest(
            format=manifest.FORMAT,
            made=made.isoformat(),
            role=settings.GRID_ROLE,
            name=settings.GRID_NAME,
            vendor=connection.vendor,
            public_key=keys.public_key(),
            audit=found.audit,
            migrations=found.migrations,
            keys={name: manifest.entry(path) for name, path in key_files(Path(settings.GRID_KEYS_DIR)).items()},
            files=named,
        ),
    )


def _copy_storage(target: Path) -> None:
    """Add to `target` what is not there yet: as hard links where they are possible, for no file is ever rewritten."""
    source = Path(settings.GRID_STORAGE_DIR)
    for file in _lasting(source):
        place = target / file.relative_to(source)
        if place.exists():
            continue
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except FileNotFoundError:
            continue  # removed meanwhile; whether it is missed is looked at in the end
        except OSError:  # another file system, or one without links
            with suppress(FileNotFoundError):
                shutil.copyfile(file, place)


def _lasting(source: Path) -> Iterator[Path]:
    for kept in KEPT:
        for folder, inside, files in os.walk(source / kept):
            # What workers make from the records of an individual pot, they make again.
            inside[:] = [name for name in inside if not name.startswith("incoming-") and name != "cache"]
            yield from (Path(folder) / name for name in files if not name.endswith(".incoming"))


def _came_and_went(found: Snapshot, storage: Path) -> bool:
    """Whether constants were removed that the snapshot still needs, before they were seen."""
    unseen = {key for key in found.may_run if not (storage / "requests" / str(key) / CONSTANTS).exists()}
    return bool(unseen) and bool(unseen - set(DataRequest.objects.filter(MAY_RUN).values_list("pk", flat=True)))


def _check_complete(found: Snapshot, storage: Path) -> None:
    for version in found.versions:
        if not any((storage / version).glob("*")):
            raise BackupRefusal(f"The storage lacks a dataset's version that the database names: {version}.")
    for file in found.files:
        if not (storage / file).exists():
            raise BackupRefusal(f"The storage lacks a file that the database names: {file}.")


def key_files(folder: Path) -> dict[str, Path]:
    """The keys in a folder, without the heads of log and ledger: put back with a database, they would prove nothing."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(("audit.head", "ledger."))
    }


def place_keys(files: dict[str, Path], target: Path) -> None:
    """Copy keys, durably, for this account only."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, path in files.items():
        with os.fdopen(os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(path.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    sync(target)
