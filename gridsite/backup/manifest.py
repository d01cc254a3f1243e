"""What a backup set holds: every file with its sha256, signed with the deployment's key."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated

import msgspec

from apps.core import keys
from apps.core.canonical import canonical

DOMAIN = "gridsite/backup/1"
FILE, SIGNATURE = "manifest.json", "manifest.sig"
FORMAT = 1


class BackupRefusal(Exception):
    """Why nothing was backed up or restored, in words for the operator."""


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    nbytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """`audit` is number and hash of the last event; `migrations` are those that the database had.

    Of the keys, which are elsewhere, the digests: of random bytes, from which nothing can be guessed.
    """

    format: int
    made: str
    role: str
    name: str
    vendor: str
    public_key: str
    audit: tuple[int, str]
    migrations: list[tuple[str, str]]
    keys: dict[str, Entry]
    files: dict[str, Entry]


def entry(path: Path) -> Entry:
    """Size and digest of a file."""
    with path.open("rb") as file:
        return Entry(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def files_of(folder: Path) -> dict[str, Path]:
    """Every file below `folder`, by its path in it. Raises BackupRefusal for links and other things."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BackupRefusal(f"{path} is neither a file nor a folder.")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path
    return found


def write(folder: Path, manifest: Manifest) -> str:
    """Write and sign it, durably; its sha256."""
    data = canonical(msgspec.to_builtins(manifest))
    digest = hashlib.sha256(data).hexdigest()
    _write(folder / FILE, data)
    _write(folder / SIGNATURE, keys.sign(DOMAIN, digest.encode()).encode())
    return digest


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path, public: str) -> tuple[Manifest, str]:
    """The manifest of a set and its sha256, if `public` signed it and every file is the one that it names."""
    try:
        data, signature = (folder / FILE).read_bytes(), (folder / SIGNATURE).read_text()
    except OSError as error:
        raise BackupRefusal(f"{folder} is no finished backup: {error.filename} cannot be read.") from None
    digest = hashlib.sha256(data).hexdigest()
    if not keys.verify(public, DOMAIN, digest.encode(), signature):
        raise BackupRefusal(
            "The manifest is not signed by the key that goes with it: another node's backup, or changed."
        )
    try:
        if json.loads(data).get("format") != FORMAT:
            raise BackupRefusal("This backup has another format: restore it with the version that made it.")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (ValueError, AttributeError, msgspec.MsgspecError):
        raise BackupRefusal("The manifest cannot be read.") from None
    check(folder, manifest.files)
    return manifest, digest


def check(folder: Path, named: dict[str, Entry]) -> None:
    """Raise BackupRefusal unless `folder` holds exactly the named files."""
    found = files_of(folder)
    for path in named.keys() - found.keys():
        raise BackupRefusal(f"The backup lacks a file that its manifest names: {path}.")
    for path in found.keys() - named.keys() - {FILE, SIGNATURE}:
        raise BackupRefusal(f"The backup holds a file that its manifest does not name: {path}.")
    for path, expected in named.items():
        if entry(found[path]) != expected:
            raise BackupRefusal(f"A file of the backup was changed: {path}.")
