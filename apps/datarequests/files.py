"""Files of requests: complete and durable before a row of the database says that they are there."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from apps.core.durable import sync

CONSTANTS = "constants.safetensors"


def place(source: Path, target: Path) -> None:
    """Move a finished file to `target`, durably. A file that is there is replaced as a whole."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Beside the target first: a session's folder may be on another file system, where a rename is a copy.
    aside = target.with_name(f"{target.name}.incoming")
    shutil.move(source, aside)
    sync(aside)
    os.replace(aside, target)
    sync(target.parent)
    sync(target.parent.parent)


def remove_constants(folder: Path) -> None:
    """Remove a request's constants, and its folder when nothing else is in it. Not being there is fine."""
    (folder / CONSTANTS).unlink(missing_ok=True)
    with suppress(OSError):  # absent, or an answer is in it
        folder.rmdir()
