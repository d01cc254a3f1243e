"""Put a backup back, into an empty deployment only. Nothing is touched before the whole set was verified."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader

from apps.audit.actions import record
from apps.audit.queries import AuditReport, verify
from apps.audit.verbs import Verb
from apps.budgets import ledger
from apps.core import keys
from gridsite.backup import databases, manifest
from gridsite.backup.making import key_files, place_keys
from gridsite.backup.manifest import BackupRefusal, Manifest


@dataclass(frozen=True)
class Restored:
    """What was put back, and what the audit log says of it."""

    manifest: Manifest
    report: AuditReport


def restore(source: Path, keys_source: Path | None, *, operator: str) -> Restored:
    """Put the set in `source` back, with the keys in `keys_source` or those that are in their place already.

    Raises BackupRefusal; then this deployment is as it was.
    """
    source = source.resolve()
    own_keys = Path(settings.GRID_KEYS_DIR)
    found, digest = manifest.read(source, _public_key(keys_source or own_keys))
    _check_fits(found)
    _check_empty()
    added = _check_keys(found, keys_source or own_keys, own_keys)
    storage = Path(settings.GRID_STORAGE_DIR)
    try:
        # Keys and files before the database: there is no moment in which it names what is not there.
        place_keys(added, own_keys)
        _copy_storage(source / "storage", storage)
        databases.put_back(source / databases.FILES[connection.vendor])
    except BaseException:
        shutil.rmtree(storage, ignore_errors=True)
        for name in added:
            (own_keys / name).unlink(missing_ok=True)
        raise
    keys._signing_key.cache_clear()
    call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
    put_in_order(found, digest, operator=operator)
    return Restored(found, verify())


@transaction.atomic
def put_in_order(found: Manifest, digest: str, *, operator: str) -> None:
    """Record what was put back. No private answer that was charged and not there yet is drawn from now on: it may have
    left after the backup was made, and a second draw for one charge would tell more than was paid for."""
    record(
        Verb.BACKUP_RESTORED,
        by=None,
        target=f"backup:{digest}",
        operator=operator,
        made=found.made,
        audit=list(found.audit),
    )
    for release in ledger.unanswered():
        ledger.void(release, "It was charged before the backup was made, and may have been answered after it.")


def _public_key(folder: Path) -> str:
    try:
        private = Ed25519PrivateKey.from_private_bytes((folder / "signing.key").read_bytes())
        return private.public_key().public_bytes_raw().hex()
    except (OSError, ValueError):
        raise BackupRefusal(f"{folder} holds no signing key: name the folder of the keys with --keys.") from None


def _check_fits(found: Manifest) -> None:
    for what, theirs, ours in (
        ("a deployment of role", found.role, settings.GRID_ROLE),
        ("a deployment named", found.name, settings.GRID_NAME),
        ("a database of kind", found.vendor, connection.vendor),
    ):
        if theirs != ours:
            raise BackupRefusal(f"This is a backup of {what} {theirs}; the settings here say {ours}.")
    unknown = set(found.migrations) - set(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)
    if unknown:
        raise BackupRefusal("This backup was made by a newer version: install that version, then restore.")


def _check_empty() -> None:
    storage = Path(settings.GRID_STORAGE_DIR)
    if storage.exists() and any(storage.iterdir()):
        raise BackupRefusal(f"The storage is not empty: {storage}. Move it away first.")
    if not databases.is_empty():
        raise BackupRefusal("The database is not empty. Restore into a new one.")


def _check_keys(found: Manifest, source: Path, own: Path) -> dict[str, Path]:
    """The keys to add. All that were there must be, and those that are in their place already must be the same."""
    theirs = {name: path for name, path in key_files(source).items() if name in found.keys}
    for name, expected in found.keys.items():
        if name not in theirs or manifest.entry(theirs[name]) != expected:
            raise BackupRefusal(f"{source / name} is missing, or is not the key that goes with this backup.")
        if (own / name).exists() and manifest.entry(own / name) != expected:
            raise BackupRefusal(f"Another key is in its place already: {own / name}. Move it away first.")
    return {name: path for name, path in theirs.items() if not (own / name).exists()}


def _copy_storage(source: Path, target: Path) -> None:
    """Copies, never links: what happens to the deployment must not happen to the backup."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if source.exists():
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    os.sync()  # once for all of it
